"""Import of a command's function."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from fastfcn_pl.engine.job_imports import imported


def test_garbage_waits_until_a_job_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job_of_test.py").write_text("import gc\nmeanwhile = gc.isenabled()\ndef job(): return meanwhile\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert imported("job_of_test:job")() is False
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError):
        imported("no_such_module:job")
    assert gc.isenabled()
