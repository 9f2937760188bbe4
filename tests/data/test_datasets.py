"""The data sets that are read from files: layouts, ids, names, colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastfcn_pl.contracts import IGNORE, DatasetSpec, UserError
from fastfcn_pl.data.datasets.ade20k import ADE20K
from fastfcn_pl.data.datasets.camvid import CamVid
from fastfcn_pl.data.labels import label_table
from fastfcn_pl.data.transforms import RandomFlip
from tests.fakes.ade20k import write_ade20k
from tests.fakes.camvid import write_camvid

LOADING = {"batch_size": 2, "num_workers": 0, "augmentation": RandomFlip(probability=0.5)}


def test_camvid_reads_the_tutorials_layout(tmp_path: Path) -> None:
    data = CamVid(0, root=str(write_camvid(tmp_path, train=3, val=2)), **LOADING)
    sample = data.dataset("val")[0, 1]
    assert len(data.dataset("train")) == 3
    assert sorted(np.unique(sample["target"]).tolist()) == [*range(11), IGNORE]
    with pytest.raises(UserError, match=r"test\.txt is missing: git clone"):
        data.dataset("test")


def test_camvid_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, train=2)
    (root / "train.txt").write_text("a.png b.png\n\nonly.png\n")
    with pytest.raises(UserError, match=r"train\.txt, line 3: .*not 1 files"):
        CamVid(0, root=str(root), **LOADING).dataset("train")


def test_the_real_camvid_has_its_official_sizes(shared: Path) -> None:
    data = CamVid(0, root=str(shared / "data" / "CamVid"), **LOADING)
    assert (len(data.dataset("train")), len(data.dataset("val"))) == (367, 101)
    assert data.dataset("val")[0, 0]["image"].shape == (3, 360, 480)


@pytest.mark.parametrize("nested", [False, True])
def test_ade20k_reads_the_official_layout(tmp_path: Path, nested: bool) -> None:
    write_ade20k(tmp_path / "ADEChallengeData2016" if nested else tmp_path)
    data = ADE20K(0, root=str(tmp_path), **LOADING)
    assert (len(data.dataset("train")), len(data.dataset("val"))) == (4, 2)
    assert data.dataset("train")[0, 0]["image"].shape == (3, 65, 97)  # the grayscale one
    with pytest.raises(UserError, match="no labels for split test"):
        data.dataset("test")


def test_ade20k_ids_lead_to_the_official_names() -> None:
    """Ids and names as in `objectInfo150.txt` of CSAILVision/sceneparsing."""
    table, names = label_table(ADE20K.spec), ADE20K.spec.classes
    assert table[0] == IGNORE
    official = {1: "wall", 2: "building", 3: "sky", 13: "person", 21: "car", 76: "swivel chair", 150: "flag"}
    assert {i: names[table[i]] for i in official} == official
    assert len(names) == len(set(names)) == 150
    assert (table[151:] == -1).all()
    assert ADE20K.spec.palette[12] == (150, 5, 61)


def test_only_training_is_augmented(tmp_path: Path) -> None:
    root = str(write_camvid(tmp_path, train=4))
    data = CamVid(0, root=root, batch_size=1, num_workers=0, augmentation=RandomFlip(probability=1.0))
    flipped = {int(b["index"]): b["image"][0] for b in data.train_dataloader()}
    for batch in data.eval_dataloader("train"):
        assert torch.equal(batch["image"][0].flip(-1), flipped[int(batch["index"])])


@pytest.mark.parametrize("wrong", [{"num_workers": -1}, {"batch_size": 0}])
def test_nonsense_is_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(wrong))}="):
        CamVid(0, root=str(tmp_path), **{**LOADING, **wrong})


def test_labels_of_8_bits_hold_255_classes() -> None:
    grey = ((0, 0, 0),)
    assert DatasetSpec("many", tuple(map(str, range(255))), grey * 255).num_classes == 255
    with pytest.raises(UserError, match="256 classes, but labels are 8 bits"):
        DatasetSpec("many", tuple(map(str, range(256))), grey * 256)


def test_a_training_split_smaller_than_the_batch_says_so(tmp_path: Path) -> None:
    data = CamVid(0, root=str(write_camvid(tmp_path, train=1)), **LOADING)
    with pytest.raises(UserError, match=r"1 training images for each device, fewer than data\.batch_size=2"):
        data.train_dataloader()
