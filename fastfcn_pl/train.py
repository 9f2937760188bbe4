"""Train, then score the best checkpoint: `python -m fastfcn_pl.train [group=option] [key=value]`."""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("train", "fastfcn_pl.tools.train:train")
