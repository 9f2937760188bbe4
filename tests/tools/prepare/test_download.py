"""Downloads: what breaks off goes on, what is wrong is removed, and every mistake is one line."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.download import Download
from tests.support.file_server import Site, serving

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
download = Download(tries=2, wait=0.01, timeout=5.0)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"a.zip": CONTENT})) as site:
        yield site


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archives" / "a.zip"


def _whole(path: Path, content: bytes = CONTENT) -> None:
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def _fails(site: Site, path: Path, words: str, checksum: str | None = SHA) -> None:
    with pytest.raises(UserError, match=words) as caught:
        download(f"{site.url}/a.zip", path, checksum)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_a_broken_connection_resumes(site: Site, path: Path) -> None:
    site.cuts = [100_000, 50_000]
    download(f"{site.url}/a.zip", path, SHA)
    assert site.asked == [None, "bytes=100000-", "bytes=150000-"]
    _whole(path)


def test_the_next_run_resumes(site: Site, path: Path) -> None:
    site.cuts = [100_000, 0, 0]
    _fails(site, path, r"a\.zip failed 2 times in a row, after 100000 bytes .*: run again to resume")
    assert path.with_name("a.zip.part").stat().st_size == 100_000
    download(f"{site.url}/a.zip", path, SHA)
    assert site.asked[-1] == "bytes=100000-"
    _whole(path)


@pytest.mark.parametrize("why", ["the server knows no ranges", "the file has changed", "it has no name for versions"])
def test_what_cannot_go_on_starts_anew(why: str, site: Site, path: Path) -> None:
    site.cuts, content = [100_000, 0, 0], CONTENT
    site.etag = None if why == "it has no name for versions" else '"1"'
    _fails(site, path, "failed")
    if why == "the file has changed":
        site.etag, site.files["a.zip"] = '"2"', CONTENT[::-1][:200_000]
        content = site.files["a.zip"]
    site.knows_ranges = why != "the server knows no ranges"
    download(f"{site.url}/a.zip", path, None)
    _whole(path, content)


def test_a_file_that_was_whole_before_it_got_its_name(site: Site, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("a.zip.part").write_bytes(CONTENT)
    path.with_name("a.zip.version").write_text('"1"')
    download(f"{site.url}/a.zip", path, SHA)
    _whole(path)


def test_a_wrong_file_is_removed_and_another_run_heals(site: Site, path: Path) -> None:
    site.files["a.zip"] = CONTENT[:-1] + b"x"
    _fails(site, path, rf"is not the expected file \(sha256 is .*, not {SHA[7:]}\) and was removed")
    site.files["a.zip"] = CONTENT
    download(f"{site.url}/a.zip", path, SHA)
    _whole(path)


def test_a_server_that_never_gets_on_is_given_up(site: Site, path: Path) -> None:
    site.knows_ranges, site.cuts = False, [1000] * 9
    _fails(site, path, "failed 2 times in a row, after 1000 bytes")
    assert len(site.asked) == 3


def test_what_is_not_there_is_said_at_once(site: Site, path: Path) -> None:
    site.files = {}
    _fails(site, path, rf"a\.zip answers 404 Not Found: .*mirror=.* download it yourself to {path}$")
    assert len(site.asked) == 1
    assert not path.parent.exists()


def test_an_address_and_a_checksum_are_checked(site: Site, path: Path) -> None:
    with pytest.raises(UserError, match=r"^file:///etc/a does not start with http"):
        download("file:///etc/a", path, None)
    _fails(site, path, r"checksum 1234: give <algorithm>:<digits>", "1234")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size is Linux's")
def test_a_full_disk_is_one_line_and_with_room_it_goes_on(site: Site, path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        _fails(site, path, r"a\.zip cannot be written \(File too large\): check permissions and free space")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    download(f"{site.url}/a.zip", path, SHA)
    assert site.asked == [None, "bytes=100000-"]
    _whole(path)


@pytest.mark.parametrize("length", ["9" * 5000, str(2**63), str(10**30), "-5", "1e3", "12 34", ""])
def test_a_content_length_that_is_none_is_one_line(site: Site, path: Path, length: str) -> None:
    site.headers = {"Content-Length": length}
    _fails(site, path, r"a\.zip is invalid, or its server answers wrongly \(its Content-Length is .*\): use ano")
    assert len(site.asked) == 1


def test_more_than_the_disk_has_room_for_is_not_begun(site: Site, path: Path) -> None:
    site.headers = {"Content-Length": str(10**17)}
    _fails(site, path, r"a\.zip needs 100,000,000,000,000,000 bytes, but the disk of \S+ has only \d+")
    assert not list(path.parent.iterdir())


REDIRECTS = {
    "http://[": r"is invalid, or .* \(.*\)",
    "http://[::1/a": r"is invalid, or .* \(.*\)",
    "http://a b/": r"is invalid|failed|answers",
    "http://localhost:99999999/": r"is invalid|failed",
    "file:///etc/passwd": r"answers 302 .*",
    "ftp://127.0.0.1/a.zip": r"answers 302 Found, to ftp://127\.0\.0\.1/a\.zip, which is not allowed",
    "gopher://x": r"answers 302 .*",
    "": r"answers 302 .*infinite loop|failed",
    "/a.zip": r"answers 302 .*infinite loop",
    "\xff\xfe": r"answers|is invalid|failed",
}


@pytest.mark.parametrize("where", REDIRECTS)
def test_a_redirect_to_nowhere_is_one_line(site: Site, path: Path, where: str) -> None:
    site.status, site.headers = 302, {"Location": where}
    _fails(site, path, REDIRECTS[where])
    assert not path.parent.exists()


def test_a_redirect_to_another_server_is_followed(site: Site, path: Path) -> None:
    with serving(Site({"a.zip": b"elsewhere"}, status=301, headers={"Location": f"{site.url}/a.zip"})) as other:
        download(f"{other.url}/a.zip", path, SHA)
    _whole(path)


@pytest.mark.parametrize(
    "url", ["http://[", "http://[/a.zip", "http://", "http://x:y/a.zip", "http://a\x00b/", "http:// "]
)
def test_an_address_that_means_nothing_is_one_line(path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"is invalid|failed") as caught:
        download(url, path, None)
    assert "\n" not in str(caught.value)
    assert not path.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("header", [False, True])
def test_a_server_that_drips_is_given_up(site: Site, path: Path, header: bool) -> None:
    """A byte comes before each timeout of the socket, so that this never ends it."""
    site.pause, site.slow_header = 0.1, header
    slow = Download(tries=2, wait=0.01, timeout=0.3)
    begun = time.monotonic()
    with pytest.raises(
        UserError, match=r"failed 2 times in a row, after \d bytes \((only \d bytes|no complete answer)"
    ):
        slow(f"{site.url}/a.zip", path, SHA)
    assert time.monotonic() - begun < 6
    assert not path.exists()


def test_a_server_that_drips_and_hangs_up_is_given_up(site: Site, path: Path) -> None:
    site.pause, site.cuts = 0.05, [5] * 50
    with pytest.raises(UserError, match=r"failed 2 times in a row, after 10 bytes"):
        download(f"{site.url}/a.zip", path, SHA)


def test_a_web_page_is_no_archive(site: Site, path: Path) -> None:
    site.headers = {"Content-Type": "text/html; charset=utf-8"}
    _fails(site, path, r"a\.zip sent a web page instead of the file: use another server")
    assert not path.parent.exists()


@pytest.mark.parametrize("status", [400, 403, 410, 418, 501])
def test_a_refusal_is_said_at_once(site: Site, path: Path, status: int) -> None:
    site.status = status
    _fails(site, path, rf"a\.zip answers {status} .*: use another server")
    assert len(site.asked) == 1


def test_a_server_that_may_answer_later_is_asked_again(site: Site, path: Path) -> None:
    site.status = 503
    _fails(site, path, r"failed 2 times in a row, after 0 bytes \(Service Unavailable\)")
    assert len(site.asked) == 2


@pytest.mark.parametrize("name", ["a.zip", "a.zip.part", "a.zip.version"])
@pytest.mark.parametrize("kind", ["folder", "FIFO"])
def test_what_is_no_file_in_the_place_of_one_is_said(site: Site, path: Path, name: str, kind: str) -> None:
    path.parent.mkdir()
    (Path.mkdir if kind == "folder" else os.mkfifo)(path.with_name(name))
    with pytest.raises(UserError, match=rf"{name} is not a file: remove it, or choose another folder with archives="):
        download(f"{site.url}/a.zip", path, SHA)


def test_garbage_in_the_place_of_a_version_starts_anew(site: Site, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("a.zip.part").write_bytes(CONTENT[:1000])
    path.with_name("a.zip.version").write_bytes(b"\xff\n\0x")
    download(f"{site.url}/a.zip", path, SHA)
    assert site.asked == [None]
    _whole(path)
