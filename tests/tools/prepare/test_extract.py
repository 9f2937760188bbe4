"""Unpacking: whole or not at all, inside its folder, from archives that may be anything."""

from __future__ import annotations

import io
import resource
import shutil
import stat
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.extract import BrokenArchiveError, extract

KINDS = ("a.zip", "a.tar", "a.tar.gz", "a.tgz")
FILES = {f"kit/VOC/{name}": np.random.default_rng(i).bytes(3000) for i, name in enumerate(("x/1", "x/y/2", "z", "not"))}


def _write(path: Path, files: dict[str, bytes], link: str = "") -> Path:
    """Write an archive of files, and of a symbolic link to /etc/passwd."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
            if link:
                info = zipfile.ZipInfo(link)
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                opened.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            if link:
                member = tarfile.TarInfo(link)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
    return path


def _tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_is_taken(kind: str, tmp_path: Path) -> None:
    into = tmp_path / "root" / "sub"
    (into / f".{kind}" / "kit" / "VOC" / "x").mkdir(parents=True)
    (into / f".{kind}" / "kit" / "VOC" / "x" / "old").touch()  # a run was killed here
    extract(_write(tmp_path / kind, FILES), "kit/VOC", ["x", "z"], into)
    assert _tree(tmp_path / "root") == {f"sub/{n}": FILES[f"kit/VOC/{n}"] for n in ("x/1", "x/y/2", "z")}


def test_a_file_that_is_no_archive_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    extract(tmp_path / "a.json", "", ["a.json"], tmp_path / "root")
    assert _tree(tmp_path / "root") == {"a.json": b"{}"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../evil", "kit/VOC/x/../../../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
def test_no_path_leads_out(kind: str, name: str, tmp_path: Path) -> None:
    archive = _write(tmp_path / kind, {**FILES, name: b"evil"})
    with pytest.raises(UserError, match=r"which leads out of it: get another copy"):
        extract(archive, "kit/VOC", ["x", "z"], tmp_path / "root")
    assert _tree(tmp_path) == {kind: archive.read_bytes()}


@pytest.mark.parametrize("kind", KINDS)
def test_links_are_refused(kind: str, tmp_path: Path) -> None:
    archive = _write(tmp_path / kind, FILES, link="kit/VOC/x/link")
    with pytest.raises(UserError, match=r"contains the link or device 'kit/VOC/x/link'"):
        extract(archive, "kit/VOC", ["x"], tmp_path / "root")
    assert _tree(tmp_path) == {kind: archive.read_bytes()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_wherever_an_archive_is_cut_nothing_is_taken_from_it(kind: str, tmp_path: Path) -> None:
    whole = _write(tmp_path / kind, FILES).read_bytes()
    end = len(whole) if kind != "a.tar" else 4 * (512 + 3072) + 512  # behind it, a tar file is zeros
    for cut in [*range(0, end, 401), *(range(0, end, 512) if kind == "a.tar" else ()), end - 1]:
        (tmp_path / kind).write_bytes(whole[:cut])
        with pytest.raises(BrokenArchiveError):
            extract(tmp_path / kind, "kit/VOC", ["x", "z"], tmp_path / "root")
        assert not list((tmp_path / "root").iterdir()), cut


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found(kind: str, tmp_path: Path) -> None:
    if kind == "a.tar":
        pytest.skip("a tar file has no checksum of its content: the source gives one")
    content = bytearray(_write(tmp_path / kind, FILES).read_bytes())
    content[len(content) // 3] ^= 1
    (tmp_path / kind).write_bytes(content)
    with pytest.raises(BrokenArchiveError, match="cannot be unpacked"):
        extract(tmp_path / kind, "kit/VOC", ["x", "z"], tmp_path / "root")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchiveError, match=r"a\.zip has no kit/VOC/masks in it"):
        extract(_write(tmp_path / "a.zip", FILES), "kit/VOC", ["x", "masks"], tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size is Linux's")
def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    archive, (soft, hard) = _write(tmp_path / "a.zip", FILES), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError, match=r"root cannot be written \(File too large\)"):
            extract(archive, "kit/VOC", ["x", "z"], tmp_path / "root")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "root").iterdir())
    extract(archive, "kit/VOC", ["x", "z"], tmp_path / "root")
    assert len(_tree(tmp_path / "root")) == 3


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_members_are_found_however_they_are_compressed(method: int, tmp_path: Path) -> None:
    """Wherever a byte is wrong, nothing is taken, or what the archive held before."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as opened:
        for name, content in FILES.items():
            opened.writestr(name, content[:500] * 6)
    whole = (tmp_path / "a.zip").read_bytes()
    broken = 0
    for place in range(0, len(whole), 97):
        content = bytearray(whole)
        content[place] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(content)
        try:
            extract(tmp_path / "a.zip", "kit/VOC", ["x"], tmp_path / f"root{place}")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert not list((tmp_path / f"root{place}").iterdir())
            broken += 1
    assert broken > len(whole) / 97 / 3


@pytest.mark.parametrize("kind", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_damaged_tar_files_are_found_however_they_are_compressed(kind: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / kind, f"w:{kind.rpartition('.')[2]}") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    extract(tmp_path / kind, "kit/VOC", ["x", "z"], tmp_path / "whole")
    assert len(_tree(tmp_path / "whole")) == 3
    content = bytearray((tmp_path / kind).read_bytes())
    for damaged in (content[: len(content) // 2], content[:3000] + bytes(50) + content[3050:]):
        (tmp_path / kind).write_bytes(damaged)
        with pytest.raises(BrokenArchiveError, match="cannot be unpacked"):
            extract(tmp_path / kind, "kit/VOC", ["x", "z"], tmp_path / "root")
        assert not list((tmp_path / "root").iterdir())


NAMES = {
    "not UTF-8": (
        "kit/VOC/x/\udcff\udce9.jpg",
        r"contains the path 'kit/VOC/x/\\udcff\\udce9\.jpg', which is not UTF-8",
    ),
    "300 bytes": (
        "kit/VOC/x/" + "n" * 300,
        r"contains the path '.*nnn\.\.\.nnn.*', which cannot be created \(File name too",
    ),
    "a file as a folder": (
        "kit/VOC/x/1/more",
        r"contains the path 'kit/VOC/x/1/more', which cannot be created \(File exists\)",
    ),
    "a folder as a file": (
        "kit/VOC/x/y",
        r"contains the path 'kit/VOC/x/y', which cannot be created \(Is a directory\)",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cannot_be_made_are_one_line(name: str, tmp_path: Path) -> None:
    path, line = NAMES[name]
    archive = _write(tmp_path / "a.tar", {**FILES, path: b"x"})
    with pytest.raises(BrokenArchiveError, match=line):
        extract(archive, "kit/VOC", ["x"], tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_a_zip_whose_name_claims_to_be_utf_8(tmp_path: Path) -> None:
    content = _write(tmp_path / "a.zip", {**FILES, "kit/VOC/x/caf\xe9": b"x"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace("caf\xe9".encode(), b"caf\xff\xfe"))
    with pytest.raises(BrokenArchiveError, match=r"a\.zip cannot be unpacked \('utf-8' codec"):
        extract(tmp_path / "a.zip", "kit/VOC", ["x"], tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_a_file_instead_of_a_folder_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchiveError, match=r"a\.zip has a file kit/VOC/z instead of a folder"):
        extract(_write(tmp_path / "a.zip", FILES), "kit/VOC", ["x", "z"], tmp_path / "root", folders=["x", "z"])
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_the_disk_has_room_for_is_not_begun(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    archive = _write(tmp_path / kind, {**FILES, "kit/VOC/x/bomb": bytes(4 << 20)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4_000_000))
    with pytest.raises(UserError, match=r"has 4,194,304 bytes in .*bomb', but \S+root has only 4,00"):
        extract(archive, "kit/VOC", ["x"], tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("kind", ["hard link", "device", "FIFO"])
def test_what_is_no_file_in_a_tar_is_refused(kind: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("kit/VOC/x/it")
        member.type = {"hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "FIFO": tarfile.FIFOTYPE}[kind]
        member.linkname = "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match=r"contains the link or device 'kit/VOC/x/it'"):
        extract(tmp_path / "a.tar", "kit/VOC", ["x"], tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("left", ["file", "link", "folder"])
def test_whatever_is_in_the_place_to_unpack_in_goes(left: str, tmp_path: Path) -> None:
    archive, hidden = _write(tmp_path / "a.zip", FILES), tmp_path / "root" / ".a.zip"
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    make = {"file": hidden.touch, "folder": hidden.mkdir, "link": lambda: hidden.symlink_to(tmp_path / "elsewhere")}
    make[left]()
    extract(archive, "kit/VOC", ["x"], tmp_path / "root")
    assert len(_tree(tmp_path / "root")) == 2
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["kept"]
