"""Unusable masks are refused, or reported, before training; real data sets pass."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config import build
from fastfcn_pl.core.types import DatasetSpec, UserError
from fastfcn_pl.data import class_check
from fastfcn_pl.data.class_check import check_masks
from fastfcn_pl.data.io.image_files import ColorReader, FileSource
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.tools.doctor.command import doctor
from tests.data.test_datasets import every_data_set, fake  # noqa: F401
from tests.fakes.folder import write_folder

Save = Callable[[np.ndarray, Path], None]


def _png(ids: np.ndarray, path: Path) -> None:
    Image.fromarray(ids).save(path)


def _palette(ids: np.ndarray, path: Path) -> None:
    mask = Image.fromarray(ids.astype(np.uint8), "P")
    mask.putpalette([0, 0, 0] * 255 + [255] * 3)
    mask.save(path)


def _root(root: Path, change: Callable[[np.ndarray], np.ndarray], save: Save = _png, splits: str = "train val") -> Path:
    """Write photographs with masks of 0 and 1, changed by `change`."""
    write_folder(root, train=4, val=2)
    for path in root.glob("masks/*/*"):
        ids = np.asarray(Image.open(path)).clip(max=1)
        save(change(ids) if path.parent.name in splits.split() else ids, path)
    return root


@pytest.fixture
def prepared(make_config: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., None]:
    """Check the data as training does before it starts."""

    def prepare(*keys: str, classes: str = "background,thing") -> None:
        own = ["data=folder", f"data.root={tmp_path}", f"data.classes=[{classes}]", "data.num_workers=0"]
        build.datamodule(make_config(*own, *keys)).prepare_data()

    return prepare


@pytest.mark.parametrize(
    ("change", "save"),
    [
        (lambda ids: ids * 255, _png),
        (lambda ids: ids * 255, _palette),
        (lambda ids: ids.astype(np.uint16) * 255, _png),
    ],
    ids=["gray", "palette", "16 bits"],
)
def test_masks_of_0_and_255_are_recognised(
    tmp_path: Path, prepared: Callable[..., None], change: Callable[[np.ndarray], np.ndarray], save: Save
) -> None:
    _root(tmp_path, change, save)
    line = (
        r"^the masks of folder hold only 0 and 255, so 255 is class thing: state it with "
        r"'data\.remap=\{0: 0, 255: 1\}', "
        r"or ignore 255 with 'data\.remap=\{0: 0, 1: 1, 255: 255\}'$"
    )
    with warnings.catch_warnings(record=True) as said:
        prepared()
    assert len(said) == 1
    assert re.match(line, str(said[0].message))
    with warnings.catch_warnings(action="error"):
        prepared("data.remap={0: 0, 255: 1}")
    line = r"class thing does not occur in the 4 masks of split train, so it is never trained"
    with (
        pytest.warns(UserWarning, match=line),
        pytest.warns(UserWarning, match=r"thing does not occur in the 2 masks of split val"),
    ):
        prepared("data.remap={0: 0, 1: 1, 255: 255}")


def test_recognised_masks_are_labelled(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    _root(tmp_path, lambda ids: ids * 255)
    own = ["data=folder", f"data.root={tmp_path}", "data.classes=[background,thing]", "data.num_workers=0"]
    data = build.datamodule(make_config(*own))
    ids = np.asarray(Image.open(tmp_path / "masks" / "val" / "000.png"))
    assert np.array_equal(data.dataset("val")[0, 0]["target"], ids // 255)
    assert data.spec.remap == {0: 0, 255: 1}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ([0, 1, 255], []),
        ([255], []),
        ([0], []),
        ([0, 255], ["data.classes=[a,b,c]"]),
        ([0, 255], ["data.remap={0: 0, 1: 1, 255: 255}"]),
    ],
)
def test_other_masks_are_not_binary(
    values: list[int], keys: list[str], tmp_path: Path, make_config: Callable[..., DictConfig]
) -> None:
    """A class that is rare counts, too: it occurs in the last mask only."""
    _root(tmp_path, lambda ids: np.resize(np.array(values[:2] if 1 not in values else [0, 255], np.uint8), ids.shape))
    if 1 in values:
        _png(np.ones((60, 80), np.uint8), tmp_path / "masks" / "train" / "003.png")
    own = ["data=folder", f"data.root={tmp_path}", "data.classes=[background,thing]", "data.num_workers=0"]
    data = build.datamodule(make_config(*own, *keys))
    assert data.spec.remap == ({0: 0, 1: 1, 255: 255} if "remap" in str(keys) else {})


def test_a_val_of_0_and_255_is_refused_too(tmp_path: Path, prepared: Callable[..., None]) -> None:
    _root(tmp_path, lambda ids: ids)
    _root(tmp_path, lambda ids: ids * 255, splits="val")
    with pytest.raises(UserError, match=r"^split val has only class background and"):
        prepared()


@pytest.mark.parametrize(
    ("values", "classes", "remap"),
    [
        ([0, 128, 255], "a,b,c", "0: 0, 128: 1, 255: 2"),
        ([0, 128], "a,b", "0: 0, 128: 1, 255: 255"),
        ([1, 2], "a,b", "1: 0, 2: 1, 255: 255"),
        ([0, 65535], "a,b", "0: 0, 65535: 1, 255: 255"),
        ([0, 1, 2, 255], "a,b", None),
    ],
)
def test_unknown_ids_are_named_with_a_suggested_remap(
    tmp_path: Path, prepared: Callable[..., None], values: list[int], classes: str, remap: str | None
) -> None:
    write_folder(tmp_path, train=1, val=1)
    rows = np.array(values, np.uint16 if max(values) > 255 else np.uint8).repeat(20)[:, None].repeat(80, 1)
    for path in tmp_path.glob("masks/*/*"):
        Image.fromarray(np.resize(rows, (60, 80))).save(path)
    line = r"000\.png has the id .*, which folder \(\d classes\) does not have: fix the mask, the classes or the remap"
    with pytest.raises(UserError, match=line + (rf", such as 'data\.remap=\{{{remap}\}}'$" if remap else "$")):
        prepared(classes=classes)


def test_masks_that_were_jpegs_are_recognised(tmp_path: Path, prepared: Callable[..., None]) -> None:
    write_folder(tmp_path, train=1, val=1)
    Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(60, 80)).save(tmp_path / "masks/train/000.png")
    with pytest.raises(UserError, match=r"256 ids occur, as in a photograph or a mask that was a JPEG"):
        prepared()


def test_masks_that_ignore_everything_are_refused(tmp_path: Path, prepared: Callable[..., None]) -> None:
    _root(tmp_path, lambda ids: np.full_like(ids, 255))
    with pytest.raises(UserError, match=r"^every pixel of split train is ignored: check the masks and the remap"):
        prepared()
    with pytest.raises(UserError, match=r"^every pixel of split train is ignored"):
        prepared("data.remap={0: 0, 1: 1, 255: 255}")


def test_a_class_that_never_occurs_is_a_warning(tmp_path: Path, prepared: Callable[..., None]) -> None:
    _root(tmp_path, np.zeros_like, splits="train")
    line = r"class thing, more does not occur in the 4 masks of split train, so it is never trained"
    with pytest.warns(UserWarning, match=line), pytest.warns(UserWarning, match="class more does not occur in the 2 m"):
        prepared(classes="background,thing,more")
    _root(tmp_path, np.zeros_like, splits="val")
    with pytest.warns(UserWarning, match=r"class thing does not occur in the 2 masks of split val, .* the mean IoU"):
        prepared()


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["data.classes=[thing]"], r"folder has only the class thing: give at least two \(background counts\)"),
        (["data.remap={0: 0, 255: 0}"], r"folder: remap maps only to background: .*'data\.remap=\{0: 0, 255: 1\}'"),
        (["data.remap={0: 0, 255: 255}"], r"folder: remap maps only to background"),
        (["data.remap={0: 255}"], r"folder: remap maps to no class"),
        (["data.masks=colors", "data.remap={0: 0, 16777215: 0}"], r"folder: remap maps only to background"),
        (["data.classes=[a,a]"], r"folder: two classes are named a"),
    ],
)
def test_fewer_than_two_classes_are_refused(
    tmp_path: Path, prepared: Callable[..., None], keys: list[str], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        prepared(*keys)


TWO = DatasetSpec("two", ("a", "b"), voc_colors(range(2)))


class _Masks(FileSource):
    """Generated masks; `read_indices` records which ones are read."""

    def __init__(self, masks: list[list[int]], **options: Any) -> None:
        super().__init__([(Path(f"{i}.jpg"), Path(f"{i}.png")) for i in range(len(masks))], **options)
        object.__setattr__(self, "masks", masks)
        object.__setattr__(self, "read_indices", [])

    def ids(self, index: int) -> np.ndarray:
        self.read_indices.append(index)  # type: ignore[attr-defined]
        return np.array([self.masks[index]], np.uint8)  # type: ignore[attr-defined]


def _check(masks: list[list[int]], **options: Any) -> tuple[list[int], list[str]]:
    source, warnings = _Masks(masks, **options), []
    check_masks("train", source, TWO, warnings.append)
    return source.read_indices, warnings  # type: ignore[attr-defined]


@pytest.mark.slow
def test_few_masks_are_read() -> None:
    """Reading stops once every class has occurred; it is spread over the split, and longer while there is one class."""
    assert _check([[0, 1]] * 500) == ([0], [])
    assert _check([[0, 0], [1, 1], [0, 1]])[0] == [0, 1]
    rare = [[0, 255]] * 3000
    rare[1500] = [1, 1]
    assert len(_check(rare)[0]) < class_check.MAX_MASKS_OF_ONE_CLASS
    read, warnings = _check([[0, 0]] * 5000)
    assert len(set(read)) == len(read) == class_check.MAX_MASKS_OF_ONE_CLASS
    assert max(np.diff(sorted(read[: class_check.MAX_MASKS]))) < 5000 / class_check.MAX_MASKS + 3
    assert warnings == [
        "class b does not occur in the 2000 masks read (of 5000) of split train, so it is never trained"
    ]


def test_255_from_a_colour_remap_is_not_questioned() -> None:
    assert _check([[0, 255]] * 3, read_mask=ColorReader({0: 0, 1: 255, 2: 1}))[1] == [
        "class b does not occur in the 3 masks of split train, so it is never trained"
    ]


def test_the_doctor_says_it_too(tmp_path: Path, make_config: Callable[..., DictConfig], capsys: Any) -> None:
    _root(tmp_path, lambda ids: ids * 255)
    keys = ["data=folder", f"data.root={tmp_path}", "data.classes=[background,thing]", "data.batch_size=2"]
    keys += ["num_workers=0", f"output={tmp_path / 'out'}", "samples=0"]
    doctor(make_config(*keys, name="doctor", run_dir=False))
    said = " ".join(capsys.readouterr().out.split())
    assert "hold only 0 and 255" in said
    doctor(make_config(*keys, "data.remap={0: 0, 255: 1}", name="doctor", run_dir=False))
    assert "hold only" not in capsys.readouterr().out
    _root(tmp_path, lambda ids: ids)
    _root(tmp_path, lambda ids: ids * 255, splits="val")
    with pytest.raises(UserError, match="training on folder would be wrong: fix the fault above"):
        doctor(make_config(*keys, name="doctor", run_dir=False))
    assert "data.remap={0: 0, 255: 1}" in " ".join(capsys.readouterr().out.split())


@every_data_set
@pytest.mark.filterwarnings("error")
def test_official_layouts_pass(name: str, fake: Path, make_config: Callable[..., DictConfig]) -> None:  # noqa: F811
    build.datamodule(make_config(f"data={name}", f"data.root={fake}")).prepare_data()


@pytest.mark.filterwarnings("error")
def test_the_real_camvid_passes(shared: Path, make_config: Callable[..., DictConfig]) -> None:
    build.datamodule(make_config("data=camvid", f"data.root={shared}/data/CamVid")).prepare_data()


def test_a_user_data_module_with_one_class_is_refused(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    _root(tmp_path, lambda ids: ids)
    data = build.datamodule(make_config("data=folder", f"data.root={tmp_path}", "data.classes=[a,b]"))
    data.spec = DatasetSpec("own", ("a",), ((0, 0, 0),))
    with pytest.raises(UserError, match="own has only the class a"):
        data.prepare_data()
