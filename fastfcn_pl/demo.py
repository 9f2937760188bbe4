"""Serve a local web page that labels images: `python -m fastfcn_pl.demo checkpoint=<path>`."""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("demo", "fastfcn_pl.tools.demo:demo")
