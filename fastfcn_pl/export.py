"""Write a network to an ONNX or PyTorch file: `python -m fastfcn_pl.export checkpoint=<path> format=onnx`.

The file runs without this package; `predict` takes it instead of a checkpoint.
"""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("export", "fastfcn_pl.tools.export.command:export")
