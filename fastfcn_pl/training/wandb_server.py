"""W&B's server: whether the user has credentials for it, and whether it can be reached."""

from __future__ import annotations

import netrc
import os
import sys
from pathlib import Path
from urllib.parse import urlparse

from fastfcn_pl.core.reachability import check_server


def logged_in() -> bool:
    """Tell whether W&B credentials are in the environment or in the netrc file, without a network request."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(_address()).hostname or ""
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    try:
        return any(file.is_file() and netrc.netrc(file).authenticators(host) for file in files)
    except netrc.NetrcParseError:
        return False


def server_reachable() -> bool:
    """Check that W&B's server can be reached, and print a line if not. W&B's own client would retry for minutes."""
    failure = check_server(_address()).failure()
    if failure is not None:
        print(f"{_address()} cannot be reached ({failure}): logging to W&B offline", file=sys.stderr, flush=True)
    return failure is None


def _address() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
