"""Parquet files of `datasets` become files that `data=folder` reads, byte for byte; mistakes are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config import build
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools import libraries
from fastfcn_pl.tools.prepare.command import prepare
from tests.conftest import composed
from tests.fakes.folder import photograph

KEYS = ["data=folder", "prepare=parquet", "data.classes=[ground,red,blue]", "num_workers=0"]


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    Image.fromarray(pixels).save(file := BytesIO(), format=form)
    return file.getvalue()


def _rows(seeds: range, **names: str) -> dict[str, list[Any]]:
    """Return columns as `datasets` stores them: structs of bytes and path."""
    pictures = [photograph(seed) for seed in seeds]
    image, mask = names.get("image", "image"), names.get("mask", "label")
    return {
        image: [
            {"bytes": _encoded(pixels, "JPEG"), "path": f"{seed}.jpg"}
            for seed, (pixels, _) in zip(seeds, pictures, strict=True)
        ],
        mask: [{"bytes": _encoded(ids, "PNG"), "path": None} for _, ids in pictures],
        "scene": [f"scene {seed}" for seed in seeds],
    }


def _write(path: Path, columns: dict[str, list[Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"_type": "Image"} for name in ("image", "label")}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    pytest.importorskip("pyarrow.parquet").write_table(table, path)


@pytest.fixture
def run(tmp_path: Path, make_config: Callable[..., DictConfig]) -> Callable[..., None]:
    return lambda *keys: prepare(make_config(*KEYS, f"data.root={tmp_path}", *keys, name="prepare", run_dir=False))


def test_rows_become_files_and_an_option(
    run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in range(2):
        _write(tmp_path / "data" / f"train-0000{part}-of-00002.parquet", _rows(range(3 * part, 3 * part + 3)))
    _write(tmp_path / "data" / "validation-00000-of-00001.parquet", _rows(range(10, 12)))
    partly = _rows(range(20, 22))
    partly["label"][0] = None
    _write(tmp_path / "data" / "test-00000-of-00001.parquet", partly)
    run()
    printed = capsys.readouterr().out
    assert "left out: 1 rows without a mask" in printed
    assert "train: 6 images" in printed
    (option,) = (tmp_path / "prepared" / "data").glob("*.yaml")
    keys = yaml.safe_load(option.read_text())
    assert keys["classes"] == ["ground", "red", "blue"]
    data = build.build(_option(keys), 0)
    assert {split: len(data.files(split)) for split in ("train", "val", "test")} == {"train": 6, "val": 2, "test": 1}
    for index, seed in enumerate(range(10, 12)):
        image, mask = data.files("val")[index]
        assert image.read_bytes() == _rows(range(seed, seed + 1))["image"][0]["bytes"]
        assert np.array_equal(data.source("val").read(index)[1], photograph(seed)[1])
        assert mask.suffix == ".png"


def _option(keys: dict[str, Any]) -> DictConfig:
    cfg = composed("data=folder", "data/augmentation=flip", "data.num_workers=0").data
    for key, value in keys.items():
        if key != "defaults":
            cfg[key] = value
    return cfg


def test_plain_bytes_other_names_and_a_share_for_validation(run: Callable[..., None], tmp_path: Path) -> None:
    columns = _rows(range(5), image="photo", mask="segments")
    plain = {
        name: [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells] for name, cells in columns.items()
    }
    _write(tmp_path / "all.parquet", plain)
    run("prepare.image=photo", "prepare.val_share=0.4")
    lists = {split: (tmp_path / "prepared" / f"{split}.txt").read_text().splitlines() for split in ("train", "val")}
    assert {split: len(lines) for split, lines in lists.items()} == {"train": 3, "val": 2}
    run("prepare.image=photo")  # its own output is replaced


def _three(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**columns, "depth": columns["image"]}


def _elsewhere(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**columns, "image": [{"bytes": None, "path": "photos/1.jpg"}] * 2}


def _damaged(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**columns, "label": [{"bytes": b"nothing", "path": None}] * 2}


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        (
            _three,
            [],
            r"has the columns image, label, depth of images, of which prepare\.image=image and prepare\.mask=None",
        ),
        (dict, ["prepare.mask=mask"], r"prepare\.mask=mask were taken: set both$"),
        (
            _elsewhere,
            [],
            r"names the file photos/1\.jpg in column image instead of holding it: write the Parquet files",
        ),
        (_damaged, [], r"train\.parquet, row of masks/train/000000, is not one of PNG, JPEG, "),
        (dict, ["data.classes=null"], r"^data\.classes is not set: name the classes of the ids"),
        (dict, ["prepare.val_share=2"], r"^prepare\.val_share=2: give a share"),
    ],
)
def test_mistakes_are_told_in_one_line(
    change: Callable[..., dict[str, list[Any]]], keys: list[str], message: str, run: Callable[..., None], tmp_path: Path
) -> None:
    _write(tmp_path / "train.parquet", change(_rows(range(2))))
    with pytest.raises(UserError, match=message) as caught:
        run(*keys)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "prepared").exists()


def test_a_damaged_file_is_named(run: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read as Parquet \(.*\): download it again"):
        run()


def test_the_extra_is_named(run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    with pytest.raises(UserError, match=r"has no Parquet file: give the folder"):
        run()
    (tmp_path / "train.parquet").write_bytes(b"")
    monkeypatch.setattr(libraries, "import_module", absent)
    with pytest.raises(UserError, match=r"^Parquet files need pyarrow: pip install 'fastfcn-pl\[parquet\]'$"):
        run()
