"""A home folder for processes that have none, as in containers that run as an unknown user.

Caches of torch, the hub, matplotlib and W&B are below the home folder, and libraries fail if they cannot name it.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

_CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "WANDB_CACHE_DIR")


def provide() -> None:
    """Set HOME, the user's name and the places of caches if they cannot be found or written to."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is None or not home.is_dir():
        os.environ["HOME"] = _folder()
    elif not os.access(home, os.W_OK | os.X_OK):  # credentials in it can still be read
        for name in _CACHES:
            if not os.environ.get(name):
                os.environ[name] = _folder()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # of an id without a name; Python 3.13 raises the latter
        os.environ["USER"] = f"user{os.getuid()}"


def _folder() -> str:
    """Return a folder below the temporary one that is this user's alone."""
    folder = Path(tempfile.gettempdir(), f"fastfcn_pl-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        return tempfile.mkdtemp(prefix="fastfcn_pl-")
    mine = folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and os.access(folder, os.W_OK)
    return str(folder) if mine else tempfile.mkdtemp(prefix="fastfcn_pl-")
