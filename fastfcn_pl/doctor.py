"""Check a data set for mistakes: `python -m fastfcn_pl.doctor data=<name> data.root=<dir>`."""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("doctor", "fastfcn_pl.tools.doctor.command:doctor")
