"""Score a checkpoint: `python -m fastfcn_pl.evaluate checkpoint=<path> [data.root=<dir>] [split=test]`."""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("evaluate", "fastfcn_pl.tools.evaluate:evaluate")
