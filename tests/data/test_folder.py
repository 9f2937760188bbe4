"""`data=folder`, a data set described in YAML; mistakes raise one line that names the key."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config import build, validation
from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.data.datasets.folder import Folder
from fastfcn_pl.data.io.pixel_limit import memory
from fastfcn_pl.data.transforms.geometric import RandomFlip
from fastfcn_pl.tools.doctor.command import doctor
from tests.conftest import ROOT
from tests.fakes.folder import COLORS, write_folder

CLASSES = ["ground", "red thing", "blue thing"]
PALETTE = COLORS.tolist()
SPLIT = {"images": "images/train", "masks": "masks/train", "list": None}


def _folder(root: Path, **changed: Any) -> Folder:
    values: dict[str, Any] = {"root": str(root), "name": "things", "classes": CLASSES, "palette": None, "remap": None}
    values |= {"masks": "ids", "mask_suffix": "", "splits": {"train": SPLIT, "val": None, "test": None}}
    values |= {"train_split": "train", "batch_size": 2, "num_workers": 0, "augmentation": RandomFlip(probability=0.5)}
    return Folder(0, **{**values, **changed})


def _mask(root: Path, pixels: np.ndarray) -> None:
    """Replace the first mask."""
    Image.fromarray(pixels).save(root / "masks" / "train" / "000.png")


def test_folders_are_read(tmp_path: Path) -> None:
    data = _folder(write_folder(tmp_path, train=3))
    sample = data.dataset("train")[0, 1]
    assert len(data.dataset("train")) == 3
    assert sorted(np.unique(sample["target"]).tolist()) == [0, 1, 2]
    assert sample["image"].shape == (3, 60, 80)
    assert (data.spec.name, data.spec.classes) == ("things", tuple(CLASSES))
    assert len(set(data.spec.palette)) == 3


def test_a_list_selects_part_of_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, train=4)
    (tmp_path / "val.txt").write_text("003\n001.jpg\n")
    data = _folder(tmp_path, splits={"train": SPLIT, "val": {**SPLIT, "list": "val.txt"}})
    assert [mask.name for _, mask in data.pairs("val")] == ["003.png", "001.png"]
    (tmp_path / "val.txt").write_text("images/train/002.jpg masks/train/001.png\n")
    data = _folder(tmp_path, splits={"val": {"list": "val.txt"}})
    assert [(image.name, mask.name) for image, mask in data.pairs("val")] == [("002.jpg", "001.png")]


def test_a_remap_maps_ids_to_classes(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=1)
    ids = np.full((60, 80), 70, np.uint16)
    ids[0], ids[1] = 33_000, 0
    _mask(root, ids)
    data = _folder(root, remap={0: 255, 70: 2, 33_000: 1})
    assert data.dataset("train")[0, 0]["target"][:3, 0].tolist() == [1, IGNORE, 2]


def test_colours_come_from_the_palette_and_the_remap(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=1)
    colors = np.full((60, 80, 3), COLORS[2], np.uint8)
    colors[0], colors[1] = COLORS[1], (224, 224, 192)
    _mask(root, colors)
    data = _folder(root, masks="colors", palette=PALETTE, remap={0xE0E0C0: 255})
    assert data.dataset("train")[0, 0]["target"][:3, 0].tolist() == [1, IGNORE, 2]
    assert data.spec.palette == tuple(map(tuple, PALETTE))
    with pytest.raises(UserError, match=r"000\.png has the colour #e0e0c0, which belongs to no class"):
        _folder(root, masks="colors", palette=PALETTE).dataset("train")[0, 0]


def test_photographs_are_rotated_by_exif(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "images" / "train" / "000.jpg"
    Image.open(path).save(path, exif=exif)
    _mask(root, np.zeros((80, 60), np.uint8))
    assert _folder(root).dataset("train")[0, 0]["image"].shape == (3, 80, 60)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"name": 7}, r"data\.name=7: give a text, in quotes"),
        ({"name": "two\nlines"}, r"data\.name='two\\nlines': give a text"),
        ({"classes": []}, r"things: 0 classes"),
        ({"classes": "cat"}, r"data\.classes=cat: give a list of names"),
        ({"classes": ["yes", True]}, r"data\.classes=\['yes', True\]: give a list of names, in quotes if"),
        ({"classes": ["a", " "]}, r"data\.classes=\['a', ' '\]: give a list of names"),
        ({"classes": ["a", "b", "a"]}, r"things: two classes are named a: rename one of them"),
        ({"palette": [[0, 0, 0]]}, r"things: 3 classes but 1 colours: give one colour for each class"),
        ({"palette": []}, r"things: 3 classes but 0 colours"),
        (
            {"palette": [[0, 0, 256]] * 3},
            r"data\.palette=\[\[0, 0, 256\].*: give \[red, green, blue\], 0 to 255, for each class",
        ),
        ({"palette": [[0, 0]] * 3}, r"data\.palette=.*: give \[red, green, blue\]"),
        ({"palette": "voc"}, r"data\.palette=voc: give \[red, green, blue\]"),
        ({"remap": {0: 3}}, r"things: remap maps to 3: use a class index, 0 to 2, or 255 to ignore the pixels"),
        ({"remap": {0: "cat"}}, r"data\.remap=\{0: 'cat'\}: map the ids in the files to class indices"),
        ({"remap": {"#ff0000": 0}}, r"data\.remap=\{'#ff0000': 0\}: map the ids in the files"),
        ({"remap": {True: 0}}, r"data\.remap=\{True: 0\}: map the ids"),
        ({"remap": [0, 1]}, r"data\.remap=\[0, 1\]: map the ids"),
        ({"masks": "color"}, r"data\.masks=color: no such kind of mask; did you mean colors\?"),
        ({"masks": 3}, r"data\.masks=3: no such kind of mask; choose from colors, ids"),
        ({"masks": "colors"}, r"data\.masks=colors needs data\.palette"),
        (
            {"masks": "colors", "palette": [[0, 0, 0]] * 3},
            r"data\.palette repeats a colour: data\.masks=colors",
        ),
        ({"mask_suffix": None}, r"data\.mask_suffix=None: give the text after the image name in mask names, or ''"),
        ({"splits": None}, r"data\.splits=None: give train, val, test, each with images, masks, list, or null"),
        ({"splits": {"tran": SPLIT}}, r"data\.splits\.tran: no such split; did you mean train\?"),
        ({"splits": {"train": "images"}}, r"data\.splits\.train=images: give images, masks, list, or null"),
        ({"splits": {"train": {"image": "a"}}}, r"data\.splits\.train\.image: no such key; did you mean images\?"),
        ({"splits": {"train": {**SPLIT, "list": 12}}}, r"data\.splits\.train\.list=12: give a path below data\.root"),
    ],
)
def test_invalid_options_are_refused_before_any_file_is_read(
    tmp_path: Path, changed: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        _folder(tmp_path, **changed)


def test_missing_folders_and_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=nowhere is not a folder: give the folder of your images"):
        _folder(Path("nowhere")).dataset("train")
    with pytest.raises(UserError, match=r"data\.root=x{999} is not a folder"):
        _folder(Path("x" * 999)).dataset("train")
    with pytest.raises(UserError, match=r"things has no split test, only train: set data\.splits\.test"):
        _folder(tmp_path).dataset("test")
    with pytest.raises(UserError, match=r"data\.splits\.train\.masks is not set: give a folder below data\.root, or a"):
        _folder(tmp_path, splits={"train": {"images": "."}}).dataset("train")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"split train of things is empty: check data\.root and the split's list"):
        _folder(tmp_path, splits={"train": {"list": "empty.txt"}}).dataset("train")


PETS = """
defaults: [folder, override augmentation: flip, _self_]
root: data
name: pets
classes: [background, cat, dog]
remap: {0: 255, 7: 0, 0xFF: 2}
splits:
  val: {masks: labels}
"""


@pytest.mark.slow
def test_a_user_yaml_overrides_the_defaults(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pets.yaml").write_text(PETS)
    cfg = make_config("data=pets", f"hydra.searchpath=[{tmp_path}]", "data.splits.test={images: a, masks: b}")
    validation.check(cfg)
    data = build.datamodule(cfg)
    assert isinstance(data, Folder)
    assert isinstance(data.augmentation, RandomFlip)
    assert (data.spec.name, data.spec.remap) == ("pets", {0: 255, 7: 0, 255: 2})
    assert data.splits == {
        "train": {"images": "images/train", "masks": "masks/train", "list": None},
        "val": {"images": "images/val", "masks": "labels", "list": None},
        "test": {"images": "a", "masks": "b"},
    }


def test_the_command_line_is_enough(make_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"data\.root has no value: set it with data\.root="):
        validation.check(make_config("data=folder", "data.classes=[cat,dog]"))
    cfg = make_config("data=folder", "data.root=pets", "data.classes=[cat,dog]", "data.remap={0:255,1:0,2:1}")
    validation.check(cfg)
    assert build.datamodule(cfg).spec.remap == {0: 255, 1: 0, 2: 1}


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Write the YAML of the documentation, with photographs and masks in its folders."""
    section = (ROOT / "docs" / "data.md").read_text().partition("## Your own folder")[2]
    text = section.partition("```yaml\n")[2].partition("```")[0]
    option = tmp_path / "my_conf" / "data" / "pets.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(text)
    for kind, pixels in (("photos", np.full((60, 80, 3), 90)), ("labels", np.arange(80) // 20 % 4 + np.zeros((60, 1)))):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for name in ("cat1", "dog1", "dog2"):
            ids = np.where(pixels == 3, 9, pixels)  # 9 is ignored
            Image.fromarray(ids.astype(np.uint8)).save(tmp_path / "pets" / kind / f"{name}.png")
    for split, names in (("train", "cat1\ndog1\n"), ("val", "dog2\n")):
        (tmp_path / "pets" / f"{split}.txt").write_text(names)
    return option.parent.parent


@pytest.mark.slow
def test_the_data_set_of_the_documentation(own_data: Path, make_config: Callable[..., DictConfig]) -> None:
    searched = f"hydra.searchpath=[{own_data}]"
    cfg = make_config("data=pets", searched, f"data.root={own_data.parent / 'pets'}", "data.batch_size=2")
    validation.check(cfg)
    data = build.datamodule(cfg)
    data.prepare_data()
    assert [len(data.dataset(split)) for split in ("train", "val")] == [2, 1]
    assert data.dataset("val")[0, 0]["target"].unique().tolist() == [0, 1, 2, IGNORE]
    assert next(iter(data.train_dataloader()))["image"].shape[:2] == (2, 3)


def test_an_unreadable_root_or_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _folder(write_folder(tmp_path, train=2))

    def refuse(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "masks"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        with pytest.raises(UserError, match=r"/masks cannot be listed \(Permission denied\): change its permissions"):
            data.files("train")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=rf"^data\.root={tmp_path} is not readable: change its permissions, or give"):
        data.files("train")


def test_bad_files_are_named_before_training_if_they_are_masks_and_all_of_them_by_the_doctor(
    tmp_path: Path, make_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, train=6, val=2)
    (tmp_path / "masks" / "train" / "000.png").write_bytes(b"none")
    (tmp_path / "images" / "train" / "003.jpg").write_bytes(b"none")
    Image.new("L", (9, 9)).save(tmp_path / "masks" / "train" / "005.png")
    data = _folder(tmp_path, splits={"train": SPLIT, "val": {"images": "images/val", "masks": "masks/val"}})
    with pytest.raises(UserError, match=r"masks/train/000\.png cannot be read as an image \("):
        data.prepare_data()
    for index, line in ((3, r"images/train/003\.jpg cannot be read"), (5, r"005\.png is 9x9 but its image .*005\.jpg")):
        with pytest.raises(UserError, match=line):
            data.dataset("train")[0, index]
    keys = ["data=folder", f"data.root={tmp_path}", "data.classes=[a,b,c]", "data.batch_size=2", "num_workers=0"]
    with pytest.raises(UserError, match="fix the 3 faults above"):
        doctor(make_config(*keys, f"output={tmp_path / 'out'}", "samples=0", name="doctor", run_dir=False))
    said = capsys.readouterr().out
    assert all(f"train/{name}" in said for name in ("000.png", "003.jpg", "005.png"))


def test_class_weights_are_as_many_as_classes(tmp_path: Path) -> None:
    assert _folder(tmp_path).class_weights is None
    assert _folder(tmp_path, class_weights=[1, 2, 3.5]).class_weights == [1, 2, 3.5]
    with pytest.raises(
        UserError, match=r"^data\.class_weights has 2 numbers for 3 classes: give one for each, or null"
    ):
        _folder(tmp_path, class_weights=[1, 2])


def test_a_remap_has_ranges_for_maps_of_things(tmp_path: Path) -> None:
    """Such as Cityscapes' instance ids: 1000 times the class, plus the number of the thing."""
    root = write_folder(tmp_path, train=1)
    ids = np.resize(np.arange(26_000, 26_700), (60, 80)).astype(np.uint16)
    ids[0], ids[1], ids[2] = 7, 24_999, 65_535
    _mask(root, ids)
    data = _folder(root, remap={"0-33": 0, "24000-24999": 1, "26000-26999": 2, 65_535: 255})
    target = data.dataset("train")[0, 0]["target"]
    assert [np.unique(row).tolist() for row in target[:4]] == [[0], [1], [IGNORE], [2]]
    assert (target[3:] == 2).all()
    _mask(root, ids.astype(np.int32))
    assert np.array_equal(data.dataset("train")[0, 0]["target"], target)
    ids[0, 0] = 500
    _mask(root, ids)
    with pytest.raises(UserError, match=r"000\.png has the id 500, which things \(3 classes\) does not have"):
        data.dataset("train")[0, 0]


@pytest.mark.parametrize(
    ("remap", "line"),
    [
        ({"5-3": 0, 0: 1}, r"^data\.remap: 5-3 is a range of 0 ids: give 1 to 65536, lowest first$"),
        ({"0-99999999": 0, 0: 1}, r"^data\.remap: 0-99999999 is a range of 100000000 ids: give 1 to 65536"),
        ({"0-9": 0, 3: 1}, r"^data\.remap: 3 contains 3, which another key has, too: remove one$"),
        ({"0-9": 0, "5-20": 1}, r"^data\.remap: 5-20 contains 5, which another key"),
        ({"a-b": 0, 0: 1}, r"^data\.remap=\{'a-b': 0, 0: 1\}: map the ids in the files"),
        ({"0-9": 7, 10: 1}, r"things: remap maps to 7: use a class index"),
    ],
)
def test_invalid_ranges_are_refused(tmp_path: Path, remap: dict[Any, int], line: str) -> None:
    with pytest.raises(UserError, match=line):
        _folder(tmp_path, remap=remap)


def test_ranges_are_given_on_the_command_line(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    keys = [
        "data=folder",
        f"data.root={tmp_path}",
        "data.classes=[a,b]",
        "data.remap={0-33: 0, 1000-1001: 1, 255: 255}",
    ]
    remap = build.datamodule(make_config(*keys)).spec.remap
    assert remap == {**dict.fromkeys(range(34), 0), 1000: 1, 1001: 1, 255: 255}


def test_images_above_pillows_limit_are_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also masks that the fast decoder reads; the memory is said before training."""
    root = write_folder(tmp_path, train=2, val=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    monkeypatch.setattr("fastfcn_pl.data.datasets.folder._LARGE", 4000)
    splits = {"train": SPLIT, "val": {"images": "images/val", "masks": "masks/val"}}
    refused = (
        r"has 4800 pixels, too many for a file of unknown origin, and takes 0\.0 GiB: if you trust it, set data\.max_"
    )
    for limit in (None, 4700):
        data = _folder(root, splits=splits, max_pixels=limit)
        with pytest.raises(UserError, match=refused):
            data.dataset("train")[0, 0]
    data = _folder(root, splits=splits, max_pixels=4800)
    assert data.dataset("train")[0, 0]["image"].shape == (3, 60, 80)
    assert Image.MAX_IMAGE_PIXELS == 2000  # for all other files
    with pytest.warns(
        UserWarning, match=r"the largest image, .*/000\.jpg, has 80x60 pixels: reading it takes at least 0\.0 GiB"
    ):
        data.prepare_data()
    assert memory(400_000_000) == "3.0 GiB"
    with pytest.raises(UserError, match=r"data\.max_pixels=0: give the largest number of pixels of an image, or null"):
        _folder(root, max_pixels=0)
