"""A user's secrets, the part of a run that needs them, and the search for them in what the run leaves."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

ENVIRONMENT = {
    "HUB_TOKEN": "canary-token-1a2b3c",
    "LABEL_OF_MINE": "canary-plain-4d5e6f",
    "DATABASE": "postgres://carl:canary-database-7@db.example.org/runs",
    "WANDB_API_KEY": "local-" + "5ec4e7" * 6 + "5ec4",
    "HTTPS_PROXY": "http://proxy:canary-proxy-8@127.0.0.1:9",
}
LITERAL = {
    "password": "canary-password-9",
    "apiKey": "canary key with words 10",
    "address": "https://carl:canary-login-11@example.org/x",
    "query": "https://example.org/x?token=canary-query-12&X-Amz-Signature=canary-signature-13&size=3",
}
CANARIES = [
    "canary-token",
    "canary-plain",
    "canary-database",
    "5ec4e75ec4e7",
    "canary-proxy",
    "canary-password",
    "canary key",
    "canary-login",
    "canary-query",
    "canary-signature",
    "canary-netrc",
    "canary-default",
]
PART = '''
"""A part of the user's own, which needs secrets."""
import lightning as L

class Needs(L.Callback):
    def __init__(self, *, expected, fails=False, **given):
        import hashlib, json
        found = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
        assert found == expected, f"other values than the user's: {given}"
        self.given, self.fails = given, fails

    def on_train_start(self, trainer, module):
        import logging, warnings
        logging.getLogger("mine").warning("asking %s", self.given["address"])
        warnings.warn(f"the token is {self.given['hub']}")
        print("connected to", self.given["database"], "by", self.given["password"])
        if self.fails:
            raise RuntimeError(f"no answer with {self.given}")
'''


def part(fails: bool = False) -> list[str]:
    """Return what sets up the user's part, with secrets of each kind."""
    env = ENVIRONMENT
    given = {
        "hub": env["HUB_TOKEN"],
        "inside": f"of {env['LABEL_OF_MINE']} and more",
        "decoded": env["LABEL_OF_MINE"],
        "listed": ["first", env["HUB_TOKEN"]],
        "referred": env["HUB_TOKEN"],
        "default": "canary-default-14",
        "database": env["DATABASE"],
        **LITERAL,
    }
    expected = sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    values = {
        "_target_": "my_part.Needs",
        "expected": expected,
        "fails": str(fails).lower(),
        "hub": "${oc.env:HUB_TOKEN}",
        "inside": "'of ${oc.env:LABEL_OF_MINE} and more'",
        "decoded": "'${oc.decode:${oc.env:LABEL_OF_MINE}}'",
        "listed": "[first,'${oc.env:HUB_TOKEN}']",
        "referred": "${callbacks.mine.hub}",
        "default": "'${oc.env:NO_SUCH_TOKEN,canary-default-14}'",
        "database": "${oc.env:DATABASE}",
        **{key: f"'{value}'" for key, value in LITERAL.items()},
    }
    return [f"+callbacks.mine.{key}={value}" for key, value in values.items()]


def assert_clean(name: object, content: bytes) -> None:
    """Assert that `content`, which the message calls `name`, holds no secret."""
    for canary in CANARIES:
        assert canary.encode() not in content, f"{canary} is in {name}: ...{_around(content, canary.encode())!r}..."


def _around(content: bytes, part: bytes) -> bytes:
    place = content.index(part)
    return content[max(0, place - 80) : place + 80]


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of all files below `folder`, those inside of archives by themselves."""
    for file in sorted(folder.rglob("*")):
        yield f"the name of {file}", str(file.relative_to(folder)).encode()
        if not file.is_file():
            continue
        content = file.read_bytes()
        yield str(file), content
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(file) as archive:
                yield from ((f"{file}:{name}", archive.read(name)) for name in archive.namelist())


def searched(folder: Path) -> int:
    """Assert that no secret is in a file below `folder`, nor in its name; return how many were read."""
    files = 0
    for name, content in _contents(folder):
        assert_clean(name, content)
        files += 1
    return files
