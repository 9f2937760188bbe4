"""Atomic writing: names of any length, concurrent writers, leftovers of killed ones, full disks."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import UserError


@pytest.mark.parametrize("name", ["a.png", "x" * 251 + ".png", "é" * 125 + ".json", "." + "y" * 254, "a." + "z" * 253])
def test_any_valid_file_name_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for text in ("first", "2nd"):
        with atomic_write(path) as hidden:
            assert hidden.name.startswith(".")
            assert len(os.fsencode(hidden.name)) <= 255
            hidden.write_text(text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_concurrent_writers_of_one_file_do_not_collide(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with ExitStack() as stack:
        hidden = [stack.enter_context(atomic_write(path)) for _ in range(3)]
        assert len(set(hidden)) == 3
        assert {other.suffix for other in hidden} == {".png"}
        for i, other in enumerate(hidden):
            other.write_text(str(i))
    assert path.read_text() == "0"  # the last to end
    assert list(tmp_path.iterdir()) == [path]


def test_leftover_of_a_killed_writer_is_reused(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.png") as hidden:
        hidden.write_text("whole")
    (tmp_path / "a.png").unlink()
    assert list(tmp_path.iterdir()) == []
    hidden.write_text("longer content of a killed writer")
    with atomic_write(tmp_path / "a.png") as reused:
        assert reused == hidden
        reused.write_text("short")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["short"]


def test_a_link_or_fifo_at_the_temporary_path_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".a").symlink_to("victim")
    os.mkfifo(tmp_path / ".b")
    for name in ("a", "b"):
        with atomic_write(tmp_path / name) as hidden:
            hidden.write_text("new")
        assert (tmp_path / name).read_text() == "new"
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize("place", ["file/a.png", "x" * 256, "/proc/nothing/a.png", "folder", "y/" * 3000 + "a.png"])
def test_an_unwritable_path_raises_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    line = r"cannot be written \(.+\): check permissions and free space, or write elsewhere"
    with pytest.raises(UserError, match=line), atomic_write(tmp_path / place) as hidden:
        hidden.write_text("new")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_raises_one_line_and_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.png cannot be written"), atomic_write(tmp_path / "a.png") as hidden:
        hidden.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
