"""Save a view of a W&B project, and reports of its studies: `python -m fastfcn_pl.dashboard <entity>/<project>`."""

import sys

from fastfcn_pl.engine.launch import main

if __name__ == "__main__":
    sys.argv[1:] = [a if "=" in a or a.startswith("-") or "/" not in a else f"project={a}" for a in sys.argv[1:]]
    main("dashboard", "fastfcn_pl.tools.dashboard:dashboard")
