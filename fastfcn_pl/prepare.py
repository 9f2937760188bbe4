"""Download, unpack and convert a data set: `python -m fastfcn_pl.prepare data=<name> data.root=<dir>`.

Steps that are done already are skipped. `archives=<dir>` names a folder of archives that are already downloaded.
"""

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    main("prepare", "fastfcn_pl.tools.prepare.command:prepare")
