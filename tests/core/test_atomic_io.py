"""Files that are whole or not there: names of any length, several writers at once, what a killed one left behind."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastfcn_pl.core.atomic_io import staged
from fastfcn_pl.core.types import UserError


@pytest.mark.parametrize("name", ["a.png", "x" * 251 + ".png", "é" * 125 + ".json", "." + "y" * 254, "a." + "z" * 253])
def test_a_name_that_a_disk_takes_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for text in ("first", "2nd"):
        with staged(path) as hidden:
            assert hidden.name.startswith(".")
            assert len(os.fsencode(hidden.name)) <= 255
            hidden.write_text(text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_several_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with ExitStack() as stack:
        hidden = [stack.enter_context(staged(path)) for _ in range(3)]
        assert len(set(hidden)) == 3
        assert {other.suffix for other in hidden} == {".png"}
        for i, other in enumerate(hidden):
            other.write_text(str(i))
    assert path.read_text() == "0"  # the last to end
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_used_again(tmp_path: Path) -> None:
    with staged(tmp_path / "a.png") as hidden:
        hidden.write_text("whole")
    (tmp_path / "a.png").unlink()
    assert list(tmp_path.iterdir()) == []
    hidden.write_text("a long content, which a kill left there")
    with staged(tmp_path / "a.png") as again:
        assert again == hidden
        again.write_text("short")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["short"]


def test_a_link_or_a_fifo_in_the_hidden_place_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".a").symlink_to("victim")
    os.mkfifo(tmp_path / ".b")
    for name in ("a", "b"):
        with staged(tmp_path / name) as hidden:
            hidden.write_text("new")
        assert (tmp_path / name).read_text() == "new"
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize("place", ["file/a.png", "x" * 256, "/proc/nothing/a.png", "folder", "y/" * 3000 + "a.png"])
def test_a_place_that_takes_no_file_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    line = r"cannot be written \(.+\): make room there, or write elsewhere"
    with pytest.raises(UserError, match=line), staged(tmp_path / place) as hidden:
        hidden.write_text("new")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.png cannot be written"), staged(tmp_path / "a.png") as hidden:
        hidden.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
