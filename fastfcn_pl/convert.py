"""Convert a published checkpoint to ours: `python -m fastfcn_pl.convert source=<file> output=<file.ckpt>`."""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("convert", "fastfcn_pl.tools.convert:convert")
