"""Unpacking: whole or not at all, inside its folder, from archives that may be anything."""

from __future__ import annotations

import io
import resource
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastfcn_pl.contracts import UserError
from fastfcn_pl.data.sources.extract import BrokenArchiveError, extract

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
    with pytest.raises(UserError, match=r"which leads out of it: nothing was unpacked"):
        extract(archive, "kit/VOC", ["x", "z"], tmp_path / "root")
    assert _tree(tmp_path) == {kind: archive.read_bytes()}


@pytest.mark.parametrize("kind", KINDS)
def test_links_are_refused(kind: str, tmp_path: Path) -> None:
    archive = _write(tmp_path / kind, FILES, link="kit/VOC/x/link")
    with pytest.raises(UserError, match=r"holds a link or device, kit/VOC/x/link"):
        extract(archive, "kit/VOC", ["x"], tmp_path / "root")
    assert _tree(tmp_path) == {kind: archive.read_bytes()}


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
