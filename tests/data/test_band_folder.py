"""`data=folder` with bands: mistakes in keys and folders are one line; caches and fingerprints keep bands apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl.core.types import Bands, DatasetSpec, UserError
from fastfcn_pl.data.cache import CachedSource
from fastfcn_pl.data.datasets.folder import Folder
from fastfcn_pl.data.fingerprint import fingerprint
from fastfcn_pl.data.io.band_files import BandSource
from fastfcn_pl.data.samplers import BLANK
from fastfcn_pl.data.transforms.geometric import RandomFlip
from fastfcn_pl.tools.doctor.statistics import inspect
from tests.fakes.bands import scene, write_bands, write_tiff

SPLIT = {"images": "images/train", "masks": "masks/train", "list": None}
STATISTICS = {"mean": [1.0, 2, 3, 4, 5], "std": [1.0] * 5}


def _folder(root: Path, **changed: Any) -> Folder:
    values: dict[str, Any] = {"root": str(root), "name": "fields", "classes": ["ground", "water"], "palette": None}
    values |= {"remap": None, "masks": "ids", "mask_suffix": "", "splits": {"train": SPLIT, "val": SPLIT}}
    values |= {"train_split": "train", "batch_size": 2, "num_workers": 0, "augmentation": RandomFlip(probability=0.5)}
    return Folder(0, **{**values, "bands": [0, 1, 2, 3, 4], **STATISTICS, **changed})


def test_samples_are_floats_in_units_of_the_files(tmp_path: Path) -> None:
    dataset = _folder(write_bands(tmp_path, train=2)).dataset("train")
    image, ids = scene(sum(b"train") * 1000)
    sample = dataset[0, 0]
    assert np.array_equal(sample["image"].numpy(), np.moveaxis(image, 2, 0).astype(np.float32))
    assert np.array_equal(sample["target"].numpy(), ids)
    assert dataset[0, BLANK]["image"].shape == (5, 32, 32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bands": None}, r"^data\.mean is for data\.bands: set them, too, or remove it"),
        ({"bands": None, "mean": None, "std": None, "display_bands": [0]}, r"^data\.display_bands is for data\.bands"),
        ({"bands": 5}, r"^data\.bands=5: give a list, or null$"),
        ({"bands": []}, r"^data\.bands=\[\]: give positions of bands"),
        ({"bands": [0, -1]}, r"^data\.bands=\[0, -1\]: give positions of bands, counted from 0"),
        ({"bands": [[0], 1]}, r"^data\.bands=\[\[0\], 1\]: give one list of bands, or one for each of several folders"),
        ({"bands": [0, 1]}, r"^data\.mean=\[1\.0, 2, 3, 4, 5\]: give a number for each of 2 bands"),
        ({"std": [1.0, 1, 0, 1, 1]}, r"^data\.std=\[1\.0, 1, 0, 1, 1\]: give a number .* \(std above 0\)$"),
        ({"mean": [1.0, 2, 3, 4, float("nan")]}, r"^data\.mean=\[1\.0, 2, 3, 4, nan\]: give a number"),
        ({"display_bands": [0, 5, 1]}, r"^data\.display_bands=\[0, 5, 1\]: give three positions .*, 0 to 4$"),
    ],
)
def test_wrong_keys_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        _folder(tmp_path, **changed)


def _stacked(root: Path, **changed: Any) -> Folder:
    split = {"images": ["color", "depth"], "masks": "masks", "list": None}
    values = {"bands": [[0, 1, 2], [0]], "mean": None, "std": None, "splits": {"train": split, "val": split}}
    return _folder(root, **{**values, **changed})


@pytest.fixture
def modalities(tmp_path: Path) -> Path:
    for folder in ("color/a", "depth/a", "masks/a"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(2):
        pixels, ids = scene(i)
        Image.fromarray((pixels[..., :3] // 16).astype(np.uint8)).save(tmp_path / f"color/a/{i}.png")
        np.save(tmp_path / f"depth/a/{i}.npy", pixels[..., 3])
        Image.fromarray(ids).save(tmp_path / f"masks/a/{i}.png")
    return tmp_path


def test_folders_are_stacked_by_name(modalities: Path) -> None:
    files = [[path.relative_to(modalities).as_posix() for path in pair] for pair in _stacked(modalities).files("train")]
    assert files == [[f"color/a/{i}.png", f"masks/a/{i}.png", f"depth/a/{i}.npy"] for i in range(2)]
    (modalities / "names.txt").write_text("a/1\n")
    split = {"images": ["color", "depth"], "masks": "masks", "list": "names.txt"}
    (pair,) = _stacked(modalities, splits={"train": split}).files("train")
    assert [path.name for path in pair] == ["1.png", "1.png", "1.npy"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"bands": [0, 1]},
            r"has bands of 1 files, but data\.splits\.train\.images names 2 folders: give a list of bands",
        ),
        ({"bands": None}, r"^data\.splits\.train\.images names several folders: set data\.bands"),
    ],
)
def test_bands_belong_to_folders(changed: dict[str, Any], message: str, modalities: Path) -> None:
    with pytest.raises(UserError, match=message):
        _stacked(modalities, **changed).pairs("train")


def test_a_missing_file_of_a_modality_is_named(modalities: Path) -> None:
    (modalities / "depth/a/1.npy").unlink()
    with pytest.raises(UserError, match=r"color/a/1\.png has no file of the same name in .*depth: add it, or remove"):
        _stacked(modalities).pairs("train")


def test_all_files_have_the_bands_of_the_first(tmp_path: Path) -> None:
    data = _folder(write_bands(tmp_path, train=3), bands=[0, 1, 2, 3], mean=None, std=None)
    write_tiff(tmp_path / "images/train/001.tif", scene(0)[0][..., :4])
    tally = inspect(data, None, 0, lambda *_: None)["train"].tally
    (fault,) = tally.faults
    assert fault[0] == "image"
    assert "001.tif has 4 bands, but " in fault[1]
    assert "000.tif has 5: give files of one kind" in fault[1]


def test_val_has_the_bands_of_training(tmp_path: Path) -> None:
    """Said at set-up, although all bands that are taken exist in both."""
    root = write_bands(tmp_path, train=2, val=1)
    write_tiff(root / "images/val/000.tif", scene(0)[0][..., [0, 0, 1, 2, 3, 4]])
    splits = {"train": SPLIT, "val": {"images": "images/val", "masks": "masks/val"}}
    data = _folder(root, splits=splits)
    with pytest.raises(
        UserError, match=r"val/000\.tif has 6 bands, but .*train/000\.tif has 5: give files of one kind"
    ):
        data.prepare_data()


def test_the_memory_of_large_images_with_bands_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastfcn_pl.data.datasets.folder._LARGE", 4000)
    monkeypatch.setattr("fastfcn_pl.data.datasets.folder.memory", "{} values".format)
    splits = {"train": SPLIT, "val": {"images": "images/val", "masks": "masks/val"}}
    data = _folder(write_bands(tmp_path, train=2, val=1), splits=splits, max_pixels=64 * 80)
    with pytest.warns(
        UserWarning, match=r"the largest image, .*\.tif, has 80x64 pixels: reading it takes at least 25600 values"
    ):
        data.prepare_data()


def test_a_cache_keeps_bands_apart(tmp_path: Path) -> None:
    source = _folder(write_bands(tmp_path, train=1)).source("train")
    assert isinstance(source, BandSource)
    for bands in (((0, 1),), ((1, 0),)):
        cached = CachedSource(replace(source, bands=bands), tmp_path / "cache")
        for _ in range(2):
            assert np.array_equal(cached.read(0)[0], scene(sum(b"train") * 1000)[0][..., list(bands[0])])


def test_a_fingerprint_depends_on_bands(tmp_path: Path) -> None:
    data = _folder(write_bands(tmp_path, train=1))
    sources, bands = {"train": data.source("train")}, data.spec.bands
    assert bands is not None
    others = [None, Bands(((0, 1, 2, 4, 3),), (0, 1, 2))]
    prints = {fingerprint(replace(data.spec, bands=other), sources) for other in [bands, *others]}
    assert len(prints) == 3
    measured_again = replace(data.spec, bands=replace(bands, mean=(0.0,) * 5))
    assert fingerprint(measured_again, sources) == fingerprint(data.spec, sources)


def test_a_spec_is_plain_data() -> None:
    spec = DatasetSpec("rgb", ("a", "b"), ((0, 0, 0), (9, 9, 9)))
    assert "bands" not in spec.to_dict()
    assert DatasetSpec.from_dict(spec.to_dict()) == spec
    with_bands = replace(spec, bands=Bands(((0, 3), (0,)), (2, 1, 0), (1.0, 2, 3), (1.0, 1, 1)))
    assert DatasetSpec.from_dict(with_bands.to_dict()) == with_bands
    assert (with_bands.channels, with_bands.images) == (3, "images of 3 bands [[0, 3], [0]]")
    with pytest.raises(UserError, match=r"data\.std"):
        DatasetSpec.from_dict({**spec.to_dict(), "bands": {"files": [[0]], "display": [0], "mean": [0], "std": [-1]}})
