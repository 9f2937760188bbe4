"""Files that a user's input names: an existing path, a folder or a glob."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.find_images import find_images


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def _found(source: str) -> tuple[str, list[str]]:
    base, found = find_images(source)
    return str(base), [str(path.relative_to(base)) for path in found]


@pytest.mark.parametrize(
    "name", ["photo [1].jpg", "*.jpg", "a?.jpg", "[!a].jpg", "[", "[[]", "{}.jpg", 'it\'s "x".jpg']
)
def test_an_existing_name_is_that_file(name: str) -> None:
    _touch(f"in [a]/{name}", f"in/{name}", "photo 1.jpg", "photo [2].jpg", "a.jpg", "ab.jpg", "in a/photo 1.jpg")
    _touch(name)
    assert _found(name) == (".", [name])
    assert _found(f"in [a]/{name}") == ("in [a]", [name])
    assert _found(str(Path.cwd() / "in [a]" / name)) == (str(Path.cwd() / "in [a]"), [name])
    assert _found(glob.escape(f"in [a]/{name}")) == ("in [a]", [name])


def test_an_existing_folder_is_that_folder() -> None:
    _touch("one [a]/x.jpg", "one [a]/[b]/y.png", "one a/z.jpg", "*/star.jpg")
    assert _found("one [a]") == ("one [a]", ["[b]/y.png", "x.jpg"])
    assert _found("one [a]/") == ("one [a]", ["[b]/y.png", "x.jpg"])
    assert _found("*") == ("*", ["star.jpg"])
    assert _found("one [a]/*.jpg") == ("one [a]", ["x.jpg"])
    assert _found("one [a]/[[]b]/*") == ("one [a]/[b]", ["y.png"])
    assert _found("one [ab]/*.jpg") == (".", ["one a/z.jpg"])
    _touch("[ab]/x.png", "a/y.jpg", "b/y.jpg")
    assert _found("[ab]/*.jpg") == (".", ["a/y.jpg", "b/y.jpg"])  # the folder of that name holds none


def test_glob_results_are_relative_to_the_folder_before_the_first_wildcard() -> None:
    _touch("in/a/1.jpg", "in/b/deep/2.jpg", "in/3.jpg", "in/4.png", "in/notes.txt")
    assert _found("in/*/*.jpg") == ("in", ["a/1.jpg"])
    assert _found("in/**/*.jpg") == ("in", ["3.jpg", "a/1.jpg", "b/deep/2.jpg"])
    assert _found("in/b/**/*.jpg") == ("in/b", ["deep/2.jpg"])
    assert _found("./in/?.[jp][pn]g") == ("in", ["3.jpg", "4.png"])
    assert _found(f"{Path.cwd()}/in/a/*") == (f"{Path.cwd()}/in/a", ["1.jpg"])
    with pytest.raises(UserError, match=r"input=\*/\.\./in/\*: \.\. after a wildcard"):
        find_images("*/../in/*")


def test_hidden_files_are_found_if_spelled_out() -> None:
    _touch("in/._a.jpg", "in/.thumbnails/a.jpg", "in/__MACOSX/a.jpg", "in/@eaDir/a.jpg", "in/a.jpg", ".b.jpg")
    for source in ("in", "in/**/*.jpg", "**/*.jpg"):
        base, found = _found(source)
        assert [str(Path(base) / name) for name in found] == ["in/a.jpg"], source
    for source in ("in/._a.jpg", ".b.jpg", "in/.thumbnails", "in/__MACOSX/*", "in/.thum*/*.jpg", ".*.jpg"):
        assert len(_found(source)[1]) == 1, source


def test_globs_skip_loops_fifos_and_excluded_folders(capsys: pytest.CaptureFixture[str]) -> None:
    _touch("in/a.jpg", "in/out/a.jpg", "elsewhere/b.jpg", "in/folder.png/c.jpg")
    Path("in/loop").symlink_to("../in")
    Path("in/link").symlink_to("../elsewhere")
    os.mkfifo("in/fifo.jpg")
    base, found = find_images("in/**/*.*", skip=lambda folder: folder.name == "out")
    assert [str(path.relative_to(base)) for path in found] == ["a.jpg", "folder.png/c.jpg", "link/b.jpg"]
    assert capsys.readouterr().err.splitlines() == [
        "note: in/fifo.jpg is a FIFO, not a file: it is skipped",
        "note: in/folder.png is a folder, not a file: it is skipped",
    ]


def test_notes_are_dropped_if_stderr_is_closed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch("in/a.jpg", "in/b.jpg/c.jpg")
    monkeypatch.setattr(sys, "stderr", None)
    assert _found("in")[1] == ["a.jpg", "b.jpg/c.jpg"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("source", ["", "nothing", "no/*.jpg", "x" * 5000, "y/" * 3000, "empty", "[", "in/**"])
def test_no_match_raises_one_line(source: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"input=.*: no image found; give"):
        find_images(source)


def test_special_files_are_refused_and_not_opened() -> None:
    os.mkfifo("fifo.jpg")
    Path("zeros.png").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"input=fifo\.jpg is a FIFO, not a file: give an image"):
        find_images("fifo.jpg")
    with pytest.raises(UserError, match=r"input=zeros\.png is a device, not a file"):
        find_images("zeros.png")
