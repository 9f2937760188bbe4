"""A configuration as others may see it: without secrets, and without the folders of the person who runs it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

HIDDEN = "***"
_SECRET = re.compile(
    r"(^|[_-])(api_?key|(access|private|secret)_?key|token|password|passwd|secret|credentials?)$", re.I
)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def redacted(value: Any) -> Any:
    """Return plain containers in which texts under a key that names a secret, and logins in addresses, are hidden.

    Paths start at the current folder (`.`) or at the user's (`~`).
    """
    if isinstance(value, dict):
        return {key: HIDDEN if _is_secret(key, item) else redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def _is_secret(key: object, value: object) -> bool:
    return isinstance(value, str) and isinstance(key, str) and _SECRET.search(key) is not None


def _text(text: str) -> str:
    for folder, sign in ((os.getcwd(), "."), (str(Path.home()), "~")):
        if folder != os.sep:
            text = re.sub(rf"(?<![\w./-]){re.escape(folder)}(?=/|$)", sign, text)
    return _LOGIN.sub(HIDDEN, text)
