"""Processes without a home folder: unknown user, missing or read-only folder."""

from __future__ import annotations

import getpass
import os
import pwd
import stat
from pathlib import Path

import pytest

from fastfcn_pl.engine import home_folder
from fastfcn_pl.training.wandb_server import logged_in

CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "WANDB_CACHE_DIR")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "NETRC", "WANDB_API_KEY", *CACHES):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(home_folder.tempfile, "tempdir", str(tmp_path / "temporary"))


def _unknown(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


def test_an_unknown_user_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", _unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    home_folder.provide()
    assert Path.home().parent == tmp_path / "temporary"
    assert stat.S_IMODE(Path.home().stat().st_mode) == 0o700
    assert getpass.getuser() == f"user{os.getuid()}"
    assert logged_in() is False
    first = Path.home()
    monkeypatch.delenv("HOME")
    home_folder.provide()
    assert Path.home() == first, "caches are found again"


def test_a_folder_in_its_place_that_is_anothers_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", _unknown)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "temporary" / f"fastfcn_pl-{os.getuid()}").symlink_to(tmp_path / "theirs")
    home_folder.provide()
    assert not Path.home().is_symlink()
    assert Path.home().resolve() != tmp_path / "theirs"


def test_a_home_that_is_not_there_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    home_folder.provide()
    assert Path.home().is_dir()


def test_a_home_that_is_read_only_keeps_its_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(home_folder.os, "access", lambda path, mode: Path(path) != tmp_path)
    home_folder.provide()
    assert Path.home() == tmp_path
    assert all(Path(os.environ[name]).parent == tmp_path / "temporary" for name in CACHES)


def test_a_home_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    home_folder.provide()
    assert {name: os.environ.get(name) for name in ("HOME", *CACHES)} == {
        name: before.get(name) for name in ("HOME", *CACHES)
    }
