"""Keys of a YAML file with their values as written and the comments that explain them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import dropwhile, takewhile

_KEY = re.compile(r"( *)([\w.@/-]+):(?:\s+(.*))?$")
_COMMENT = re.compile(r" *#\s?(.*)")
_VALUE = re.compile(r"""((?:"[^"]*"|'[^']*'|[^"'])*?)(?:(?:^|\s+)#\s*(.*))?$""")


@dataclass(frozen=True)
class CommentedKey:
    """A key's value as written, empty for a block, and its meaning: the comment beside it, or the lines above it."""

    value: str
    meaning: str


def header(text: str) -> str:
    """Return the comment at the top of a YAML file."""
    lines = (_COMMENT.fullmatch(line) for line in text.splitlines())
    return " ".join(line[1] for line in takewhile(bool, lines) if line and not line[1].startswith("@package"))


def commented_keys(text: str) -> dict[str, CommentedKey]:
    """Return the keys of a YAML file by dotted path, in the order of the file; items of block lists are left out."""
    keys: dict[str, CommentedKey] = {}
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in dropwhile(_COMMENT.fullmatch, text.splitlines()):
        if comment := _COMMENT.fullmatch(line):
            above.append(comment[1])
            continue
        if key := _KEY.match(line):
            indent, name = len(key[1]), key[2]
            parents = [*((i, parent) for i, parent in parents if i < indent), (indent, name)]
            value = _VALUE.match(key[3] or "")
            assert value is not None
            meaning = value[2] or " ".join(above)
            keys[".".join(parent for _, parent in parents)] = CommentedKey(value[1].strip(), meaning)
        above = []
    return keys
