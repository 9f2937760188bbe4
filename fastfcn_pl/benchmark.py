"""Measure latency, memory and size of a network: `python -m fastfcn_pl.benchmark [group=option] [key=value]`.

A sweep (`-m model/neck=dilated,jpu`) ends in one table of its jobs. `checkpoint=<run>` measures a trained network.
"""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("benchmark", "fastfcn_pl.tools.benchmark.command:benchmark")
