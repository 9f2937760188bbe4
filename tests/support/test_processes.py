"""Processes of tests leave other files of the test alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes import start


@pytest.mark.slow
def test_the_exit_code_of_a_forgotten_process_is_written_into_no_other_file(tmp_path: Path) -> None:
    """It was written into a pipe of a later test, which then waited for ever."""
    process = start(tmp_path, "http.server", "0")
    pid, numbers = process.pid, {file.fileno() for file in process._files}
    del process
    others = [(tmp_path / str(i)).open("w") for i in range(20)]
    assert numbers <= {file.fileno() for file in others}, "they have the numbers of its files"
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # of the process that writes the code
    assert {os.fstat(file.fileno()).st_size for file in others} == {0}
    for file in others:
        file.close()
