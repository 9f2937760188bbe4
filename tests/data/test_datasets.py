"""File data sets in conf/data: layouts, splits, ids, names, colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config.schema import CONF_DIR
from fastfcn_pl.core.types import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.datasets.pascal_context import IDS_OF_459
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io.label_ids import label_table
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.data.transforms.geometric import RandomFlip
from fastfcn_pl.tools.train import train
from tests.conftest import TINY
from tests.fakes.ade20k import write_ade20k
from tests.fakes.camvid import write_camvid
from tests.fakes.cityscapes import write_cityscapes
from tests.fakes.coco_stuff import write_coco_stuff
from tests.fakes.pascal_voc import write_pascal_voc

LOADING = {"batch_size": 2, "num_workers": 0, "augmentation": RandomFlip(probability=0.5)}
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF_DIR / "data").glob("*.yaml"))}
OPTIONS = [name for name, option in FILES.items() if getattr(get_object(option["_target_"]), "split_sizes", None)]
"""Data sets with official sizes of their splits."""
FACTS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in (Path(__file__).parent / "official_ids").glob("*.yaml")
}
every_data_set = pytest.mark.parametrize("name", OPTIONS)


@pytest.fixture
def fake(tmp_path: Path, name: str) -> Path:
    """Return a tiny copy of the data set, 4 images in train and 2 in val, written by `tests/fakes/<name>.py`."""
    return getattr(import_module(f"tests.fakes.{name}"), f"write_{name}")(tmp_path / "fake", train=4, val=2)


def make(name: str, **keys: object) -> FileDataModule:
    """Build a data set as its option has it, but for `keys` and for how it is loaded."""
    option = {key: value for key, value in FILES[name].items() if key not in ("defaults", "_target_")}
    return get_object(FILES[name]["_target_"])(0, **{**option, **LOADING, **keys})


@every_data_set
def test_official_ids_map_to_the_official_names(name: str) -> None:
    facts, spec = FACTS[name], make(name).spec
    table = label_table(spec)
    assert {i: spec.classes[table[i]] for i in facts["classes"]} == facts["classes"]
    assert set(np.flatnonzero(table == IGNORE)) == set(facts["ignored"])
    assert (table >= 0).sum() == len(facts["classes"]) + len(facts["ignored"])  # any other id is an error
    assert sorted(spec.classes) == sorted(facts["classes"].values())
    assert spec.name == name
    assert len(set(spec.palette)) >= spec.num_classes - 2  # ADE20K itself gives two pairs of classes one colour


@pytest.mark.parametrize("name", [name for name in OPTIONS if "colours" in FACTS[name]])
def test_official_colours(name: str) -> None:
    spec = make(name).spec
    assert {n: list(c) for n, c in zip(spec.classes, spec.palette, strict=True)} == FACTS[name]["colours"]


@every_data_set
def test_the_official_layout_is_read(name: str, fake: Path) -> None:
    """Label maps match the images; all classes and all ignored ids occur."""
    data = make(name, root=fake)
    assert (len(data.dataset("train")), len(data.dataset("val"))) == (4, 2)
    expected = {*range(data.spec.num_classes)} | ({IGNORE} if FACTS[name]["ignored"] else set())
    for split in ("train", "val"):
        for i, (_, mask) in enumerate(data.files(split)):
            sample = data.dataset(split)[0, i]
            assert sample["image"].shape[1:] == sample["target"].shape
            ranks = np.unique(np.asarray(Image.open(mask)), return_inverse=True)[1]
            assert np.corrcoef(ranks.ravel(), sample["image"].float().mean(dim=0).numpy().ravel())[0, 1] > 0.97
            assert set(sample["target"].unique().tolist()) == expected


@every_data_set
def test_trainval_is_train_and_val(name: str, fake: Path) -> None:
    data = make(name, root=fake, train_split="trainval", batch_size=1)
    assert len(data.train_dataloader()) == 6
    assert set(data.files("trainval")) == {*data.files("train"), *data.files("val")}
    with pytest.warns(UserWarning, match="scores on val are not meaningful"):
        data.prepare_data()


@every_data_set
def test_each_mistake_raises_one_line_with_the_remedy(name: str, fake: Path) -> None:
    data, empty = make(name, root=fake), fake.with_name("empty")
    data.prepare_data()
    with pytest.raises(UserError, match=rf"^{name} has no split vall; did you mean .*\bval\b.*\?$"):
        data.source("vall")
    with pytest.raises(UserError, match=r"^data\.root=\S+/nowhere is not a folder: [^\n]*data\.root=[^\n]*$"):
        make(name, root=fake / "nowhere").prepare_data()
    empty.mkdir()
    with pytest.raises(UserError, match=rf"^{empty}/\S+ is missing: [^\n]*data\.root=[^\n]*$"):
        make(name, root=empty).source("val")
    mask = data.files("train")[1][1]
    mask.unlink()
    with pytest.raises(UserError, match=rf"^split train of {name} lacks 1 files, such as {mask}: restore"):
        data.source("train")
    for split in data.unlabelled:
        with pytest.raises(UserError, match=rf"split {split} of {name} has no public labels: use train or val"):
            data.source(split)


@pytest.mark.slow
@every_data_set
def test_it_trains_and_scores(name: str, fake: Path, make_config: Callable[..., DictConfig]) -> None:
    keys = [f"data={name}", f"data.root={fake}", "data.batch_size=2", "data.num_workers=0", "callbacks.samples.count=0"]
    crop = ["data.augmentation.base_size=64", "data.augmentation.crop_size=48", "trainer.max_epochs=1"]
    cfg = make_config(*TINY, *keys, *crop)
    train(cfg)
    results = json.loads((Path(cfg.run_dir) / "results.json").read_text())
    assert (results["data"], results["images"], results["steps"]) == (name, 2, 2)
    assert set(results["share"]) == set(FACTS[name]["classes"].values())
    assert min(results["share"].values()) > 0  # every class was counted


def test_pascal_context_with_its_background_has_60_classes() -> None:
    of_59, of_60 = make("pascal_context").spec, make("pascal_context", background=True).spec
    assert of_60.classes == ("background", *of_59.classes)
    assert of_60.palette == ((0, 0, 0), *of_59.palette)
    assert label_table(of_60)[:60].tolist() == list(range(60))
    assert of_60.name != of_59.name


def test_pascal_context_ids_among_the_459() -> None:
    assert {number: name for name, number in IDS_OF_459.items()} == FACTS["pascal_context"]["ids_of_459"]


def test_cityscapes_reads_train_ids(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, labels="labelTrainIds")
    data, facts = make("cityscapes", root=root, labels="labelTrainIds"), FACTS["cityscapes"]
    assert {i: data.spec.classes[label_table(data.spec)[i]] for i in facts["train_ids"]} == facts["train_ids"]
    assert data.dataset("val")[0, 0]["target"].unique().tolist() == [*range(19), IGNORE]
    with pytest.raises(UserError, match=r"split train of cityscapes lacks 4 files, such as .*_gtFine_labelIds\.png"):
        make("cityscapes", root=root).source("train")
    with pytest.raises(UserError, match=r"data\.labels=trainIds: .*did you mean labelTrainIds"):
        make("cityscapes", root=root, labels="trainIds")


def test_trainaug_prefers_the_masks_of_pascal_voc(tmp_path: Path) -> None:
    root = write_pascal_voc(tmp_path, train=2, val=2, added=3)
    data = make("pascal_voc", root=root, train_split="trainaug")
    data.prepare_data()
    folders = [mask.parent.name for _, mask in data.files("trainaug")]
    assert folders == ["SegmentationClass"] * 2 + ["SegmentationClassAug"] * 3


def test_training_on_val_must_be_requested(tmp_path: Path) -> None:
    root = write_pascal_voc(tmp_path, train=2, val=2)
    with (root / "ImageSets" / "Segmentation" / "train.txt").open("a") as file:
        file.write("2009_000002\n")
    with pytest.raises(
        UserError, match=r"split train of pascal_voc holds 1 images of val, such as \S*2009_000002\.jpg"
    ):
        make("pascal_voc", root=root).prepare_data()


def test_the_voc_colour_map() -> None:
    """Colours as the development kit's masks have them."""
    official = {0: (0, 0, 0), 1: (128, 0, 0), 6: (0, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    official[255] = (224, 224, 192)
    assert dict(zip(official, voc_colors(official), strict=True)) == official
    assert len(set(voc_colors(range(256)))) == 256


def test_coco_stuff_refuses_ids_of_removed_classes(tmp_path: Path) -> None:
    data = make("coco_stuff", root=write_coco_stuff(tmp_path))
    mask = data.files("val")[0][1]
    Image.fromarray(np.full((65, 97), 11, np.uint8)).save(mask)  # "street sign"
    with pytest.raises(UserError, match=f"{mask} has the id 11, which coco_stuff"):
        data.dataset("val")[0, 0]


def test_camvid_names_an_invalid_line(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=2)
    (root / "train.txt").write_text("a.png b.png\n\nonly.png\n")
    with pytest.raises(UserError, match=r"train\.txt, line 3: .*not 1 files"):
        make("camvid", root=root).dataset("train")


def test_the_real_camvid_has_its_official_sizes(shared: Path) -> None:
    data = make("camvid", root=shared / "data" / "CamVid")
    assert {split: len(data.dataset(split)) for split in ("train", "val")} == {"train": 367, "val": 101}
    assert data.dataset("val")[0, 0]["image"].shape == (3, 360, 480)


@every_data_set
def test_a_real_data_set_has_its_official_sizes(name: str, shared: Path) -> None:
    """Data sets at `shared`, at the root that their options name; missing splits are skipped."""
    data = make(name, root=shared / FILES[name]["root"])
    if not data.root.is_dir():
        pytest.skip(f"{data.root} is not there")
    found = {split: inspected for split in data.split_sizes if (inspected := _listed(data, split)) is not None}
    assert found == {split: data.split_sizes[split] for split in found}
    assert found


def _listed(data: FileDataModule, split: str) -> int | None:
    try:
        return len(data.files(split))
    except UserError as error:
        assert "is missing" in str(error)  # noqa: PT017
        return None


def test_ade20k_is_found_below_root(tmp_path: Path) -> None:
    write_ade20k(tmp_path / "ADEChallengeData2016")
    assert len(make("ade20k", root=tmp_path).dataset("train")) == 4


def test_only_training_is_augmented(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=4)
    data = make("camvid", root=root, batch_size=1, augmentation=RandomFlip(probability=1.0))
    flipped = {int(b["index"]): b["image"][0] for b in data.train_dataloader()}
    for batch in data.eval_dataloader("train"):
        assert torch.equal(batch["image"][0].flip(-1), flipped[int(batch["index"])])


@pytest.mark.parametrize("wrong", [{"num_workers": -1}, {"batch_size": 0}])
def test_invalid_options_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(wrong))}="):
        make("camvid", root=tmp_path, **wrong)


def test_labels_of_8_bits_hold_255_classes() -> None:
    grey = ((0, 0, 0),)
    assert DatasetSpec("many", tuple(map(str, range(255))), grey * 255).num_classes == 255
    with pytest.raises(UserError, match="256 classes: labels have 8 bits"):
        DatasetSpec("many", tuple(map(str, range(256))), grey * 256)


def test_a_training_split_smaller_than_the_batch_is_an_error(tmp_path: Path) -> None:
    data = make("camvid", root=write_camvid(tmp_path, train=1))
    with pytest.raises(UserError, match=r"1 training images for each device, fewer than data\.batch_size=2"):
        data.train_dataloader()
