"""Commands survive a closed pipe or terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

_LOUD = """
import os, subprocess, sys
from fastfcn_pl.engine.broken_pipe import outlive_readers
outlive_readers()
for i in range(3000):
    print("a line of output", i)
    print("a line of errors", i, file=sys.stderr)
sys.stdout.flush()
os.write(1, b"not Python's")
subprocess.run(["echo", "of a child"], check=True)
with open("done", "w") as file:
    file.write(str(file.fileno() > 2))
"""


@pytest.mark.parametrize(
    ("closing", "said"),
    [
        ("| head -1", "a line of output 0\n"),
        ("2>&1 >/dev/null | head -1", "a line of errors 0\n"),
        (">&-", None),
        ("2>&-", None),
        (">&- 2>&-", ""),
        ("<&- >&- 2>&-", ""),
    ],
)
def test_a_command_goes_on_without_readers(closing: str, said: str | None, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(_LOUD)
    command = f"set -o pipefail; '{sys.executable}' loud.py {closing}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text() == "True", "no file took the number of a closed stream"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    if said is not None:
        assert done.stdout == said
