"""Recursive listing: every file once, in order, and nothing that blocks a reader."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from fastfcn_pl.data.io.walk import is_hidden, non_file_kind, walk

SUFFIXES = {".png", ".jpg"}


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def _walked(root: Path, **options: object) -> tuple[list[str], list[str]]:
    warnings: list[str] = []
    found = [path.relative_to(root).as_posix() for path in walk(root, SUFFIXES, warn=warnings.append, **options)]  # type: ignore[arg-type]
    return found, warnings


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    _touch(tmp_path, "b.png", "a/z.JPG", "a/b/c.png", "a.png", "a-b/x.png", "notes.txt", "c", "é [1]/*.png")
    assert _walked(tmp_path) == (
        [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.[pPjJ]*"))],
        [],
    )


@pytest.mark.parametrize(
    "name", ["._a.png", ".a.png", ".thumbnails/a.png", "__MACOSX/a.png", "deep/@eaDir/a.png", "$RECYCLE.BIN/a.png"]
)
def test_hidden_files_are_skipped(tmp_path: Path, name: str) -> None:
    _touch(tmp_path / ".kept", "a.png", name)
    assert _walked(tmp_path / ".kept") == (["a.png"], [])
    assert any(map(is_hidden, Path(name).parts))


def test_links_are_followed_and_loops_are_reported(tmp_path: Path) -> None:
    _touch(tmp_path, "in/a.png", "in/deep/b.png", "elsewhere/c.png", "second/d.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to("link")
    (tmp_path / "elsewhere" / "second").symlink_to("../second")
    (tmp_path / "in" / "e.png").symlink_to("a.png")
    (tmp_path / "in" / "deep" / "loop").symlink_to("..")
    (tmp_path / "second" / "up").symlink_to("../elsewhere")
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    (tmp_path / "in" / "circle").symlink_to("circle")
    found, warnings = _walked(tmp_path / "in")
    linked = [f"{link}/{name}" for link in ("again", "link") for name in ("c.png", "second/d.png")]
    assert found == sorted(["a.png", "deep/b.png", "e.png", *linked])
    loops = ["again/second/up", "deep/loop", "link/second/up", "out"]
    assert warnings == [
        f"{tmp_path}/in/{loop} leads back to a folder that contains it: it is skipped" for loop in loops
    ]


def test_two_links_to_each_other_terminate(tmp_path: Path) -> None:
    _touch(tmp_path, "a/x.png", "b/y.png")
    (tmp_path / "a" / "to_b").symlink_to("../b")
    (tmp_path / "b" / "to_a").symlink_to("../a")
    assert _walked(tmp_path)[0] == ["a/to_b/y.png", "a/x.png", "b/to_a/x.png", "b/y.png"]


def test_special_files_are_reported_and_never_opened(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "folder.png/b.png")
    os.mkfifo(tmp_path / "fifo.png")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        found, warnings = _walked(tmp_path)
    assert found == ["a.png", "folder.png/b.png", "gone.png"]
    assert warnings == [
        f"{tmp_path}/device.png is a device, not a file: it is skipped",
        f"{tmp_path}/fifo.png is a FIFO, not a file: it is skipped",
        f"{tmp_path}/folder.png is a folder, not a file: only the files in it are read",
        f"{tmp_path}/socket.png is a socket, not a file: it is skipped",
    ]
    assert non_file_kind(tmp_path / "a.png") is None
    assert non_file_kind(tmp_path / "gone.png") is None


def test_folders_may_be_skipped_or_missing(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "out/a.png", "deep/out/a.png")
    assert _walked(tmp_path, skip=lambda folder: folder.name == "out") == (["a.png"], [])
    assert _walked(tmp_path / "nothing") == (
        [],
        [f"{tmp_path}/nothing cannot be listed (No such file or directory): it is skipped"],
    )


@pytest.mark.slow
def test_folders_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1010):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    try:
        assert _walked(tmp_path) == (["d/" * 1010 + "x.png"], [])
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # shutil.rmtree calls itself
