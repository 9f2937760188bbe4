"""Options of the data loader; a cache gives the same samples as the files."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.datasets.camvid import CamVid
from fastfcn_pl.data.io.image_files import ColorReader, FileSource
from fastfcn_pl.data.loader_options import AUTOMATIC, Loading
from fastfcn_pl.data.transforms.geometric import RandomFlip
from tests.fakes.camvid import write_camvid


def _loading(**changes: Any) -> Loading:
    return Loading(**{**vars(AUTOMATIC), **changes})


def _data(root: Path, workers: int = 0, **loading: Any) -> CamVid:
    options = {"batch_size": 2, "num_workers": workers, "augmentation": RandomFlip(probability=0.5)}
    return CamVid(5, root=str(root), train_split="train", loader=_loading(**loading), **options)  # type: ignore[arg-type]


def test_null_is_automatic_and_values_are_used(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=4)
    automatic = _data(root, workers=1).train_dataloader()
    assert (automatic.persistent_workers, automatic.pin_memory, automatic.prefetch_factor) == (False, False, 2)
    chosen = _data(root, workers=1, persistent_workers=False, pin_memory=True, prefetch=5).train_dataloader()
    assert (chosen.persistent_workers, chosen.pin_memory, chosen.prefetch_factor) == (False, True, 5)
    alone = _data(root, persistent_workers=True, prefetch=5).train_dataloader()
    assert (alone.persistent_workers, alone.num_workers) == (False, 0)


def test_prefetch_of_0_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.loader\.prefetch=0"):
        _loading(prefetch=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_gives_the_same_batches(tmp_path: Path, workers: int) -> None:
    root = write_camvid(tmp_path, train=6)
    cached = _data(root, workers, cache=str(tmp_path / "cache")).train_dataloader()
    plain = _data(root).train_dataloader()
    for _ in range(2):  # filled, then read
        for batch, expected in zip(cached, plain, strict=True):
            assert torch.equal(batch["image"], expected["image"])
            assert torch.equal(batch["target"], expected["target"])
    assert len(list((tmp_path / "cache").iterdir())) == 6


def _pair(folder: Path, colour: str) -> FileSource:
    Image.new("RGB", (4, 3), colour).save(folder / "image.png")
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(folder / "mask.png")
    return FileSource([(folder / "image.png", folder / "mask.png")], ColorReader({0: 1}))


def test_cached_pairs_are_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = CachedSource(_pair(tmp_path, "white"), tmp_path / "cache")
    first = source.read(0)
    monkeypatch.setattr(FileSource, "read", lambda *_: pytest.fail("decoded again"))
    for before, after in zip(first, source.read(0), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_changed_file_or_option_is_decoded_again(tmp_path: Path) -> None:
    source = CachedSource(_pair(tmp_path, "white"), tmp_path / "cache")
    assert source.read(0)[0].max() == 255
    _pair(tmp_path, "black")
    os.utime(tmp_path / "image.png", (time.time() + 5, time.time() + 5))
    assert source.read(0)[0].max() == 0
    other = FileSource(source.source.pairs, ColorReader({0: 2}))
    assert CachedSource(other, tmp_path / "cache").read(0)[1].max() == 2


def test_a_full_disk_gives_one_warning_and_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, array: np.ndarray) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = CachedSource(_pair(tmp_path, "white"), tmp_path / "cache")
    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match=r"is not writable \(No space left on device\)") as warned:
        assert [source.read(0)[0].max() for _ in range(2)] == [255, 255]
    assert len(warned) == 1
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_is_a_file_is_refused(tmp_path: Path) -> None:
    data = _data(write_camvid(tmp_path, train=2), cache=str(tmp_path / "train.txt"))
    with pytest.raises(UserError, match=r"^data\.loader\.cache=\S+train\.txt cannot be created \(File exists\): name"):
        data.train_dataloader()


def test_a_missing_file_is_named_as_without_a_cache(tmp_path: Path) -> None:
    source = CachedSource(_pair(tmp_path, "white"), tmp_path / "cache")
    (tmp_path / "image.png").unlink()
    with pytest.raises(UserError, match="is missing"):
        source.read(0)


@pytest.mark.parametrize(
    "damage", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr'", bytes(200), b"PK\x03\x04" + bytes(99)]
)
def test_damaged_cache_files_are_decoded_and_stored_again(tmp_path: Path, damage: bytes) -> None:
    source = CachedSource(_pair(tmp_path, "white"), tmp_path / "cache")
    expected = source.read(0)
    kept = next((tmp_path / "cache").iterdir())
    whole = kept.read_bytes()
    for content in (damage, whole[: len(whole) // 2], whole[:-1]):
        kept.write_bytes(content)
        for before, after in zip(expected, source.read(0), strict=True):
            np.testing.assert_array_equal(before, after)
        assert kept.read_bytes() == whole


def test_a_cache_deleted_during_use_gives_one_warning(tmp_path: Path) -> None:
    source = CachedSource(_pair(tmp_path, "white"), tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    with pytest.warns(UserWarning, match=r"is not writable \(No such file or directory\)"):
        assert source.read(0)[0].max() == 255


@pytest.mark.slow
def test_runs_that_share_a_cache_read_the_same_pairs(tmp_path: Path) -> None:
    """Several workers decode, store and read the same pairs at once."""
    root = write_camvid(tmp_path, train=6)
    expected = list(_data(root).train_dataloader())
    loaders = [_data(root, workers=1, cache=str(tmp_path / "cache")).train_dataloader() for _ in range(3)]
    for _ in range(2):
        for batches in zip(*loaders, expected, strict=True):
            for batch in batches[:-1]:
                assert torch.equal(batch["image"], batches[-1]["image"])
                assert torch.equal(batch["target"], batches[-1]["target"])
    assert len(list((tmp_path / "cache").iterdir())) == 6
