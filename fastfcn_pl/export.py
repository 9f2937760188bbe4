"""Write a network to a file: `python -m fastfcn_pl.export checkpoint=<path> format=onnx`, openvino, executorch, ...

The file runs without this package; `predict` takes it instead of a checkpoint.
"""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("export", "fastfcn_pl.tools.export.command:export")
