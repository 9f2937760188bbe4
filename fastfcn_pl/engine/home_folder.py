"""Home folder for processes without one, such as containers that run as an unknown user.

torch, the Hugging Face hub, matplotlib and W&B keep caches in the home folder, and fail if they cannot determine it.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

_CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "WANDB_CACHE_DIR")


def provide() -> None:
    """Set HOME, the user's name and the cache folders if they cannot be determined or written to."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is None or not home.is_dir():
        os.environ["HOME"] = _private_folder()
    elif not os.access(home, os.W_OK | os.X_OK):  # credentials in it can still be read
        for name in _CACHES:
            if not os.environ.get(name):
                os.environ[name] = _private_folder()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the user id has no name; OSError since Python 3.13
        os.environ["USER"] = f"user{os.getuid()}"


def _private_folder() -> str:
    """Return a folder in the temporary one that only this user can access."""
    folder = Path(tempfile.gettempdir(), f"fastfcn_pl-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        return tempfile.mkdtemp(prefix="fastfcn_pl-")
    private = folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and os.access(folder, os.W_OK)
    return str(folder) if private else tempfile.mkdtemp(prefix="fastfcn_pl-")
