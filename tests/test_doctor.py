"""The doctor: what it counts, and that each kind of fault is named and ends in exit code 1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.datasets.camvid import CamVid
from fastfcn_pl.tools.doctor.command import doctor
from tests.data.test_datasets import FACTS, every_data_set, fake  # noqa: F401
from tests.fakes.ade20k import write_ade20k
from tests.fakes.camvid import write_camvid
from tests.fakes.folder import write_folder


@pytest.fixture
def examine(tmp_path: Path, make_config: Callable[..., DictConfig]) -> Callable[[], dict]:
    def run() -> dict:
        keys = [f"data.root={tmp_path / 'CamVid'}", "data.batch_size=2", "num_workers=0", f"output={tmp_path / 'out'}"]
        try:
            doctor(make_config("data=camvid", *keys, name="doctor", run_dir=False))
        except UserError as error:
            assert "would be wrong" in str(error)  # noqa: PT017
        return json.loads((tmp_path / "out" / "doctor.json").read_text())

    return run


@pytest.mark.slow
def test_what_is_counted(tmp_path: Path, examine: Callable[[], dict]) -> None:
    root = write_camvid(tmp_path / "CamVid", train=4, val=2, test=1)
    result = examine()
    masks = np.stack([np.asarray(Image.open(path)) for path in sorted((root / "trainannot").glob("*.png"))])
    images = np.stack([np.asarray(Image.open(path)) for path in sorted((root / "train").glob("*.png"))]) / 255
    train = result["splits"]["train"]
    assert result["verdict"] == "ok"
    assert [*train["pixels"].values()] == np.bincount(masks.ravel())[:11].tolist()
    assert train["ignored"] == (masks == 11).sum()
    assert train["mean"] == pytest.approx(images.mean((0, 1, 2)).tolist())
    assert train["std"] == pytest.approx(images.std((0, 1, 2)).tolist())
    assert Image.open(tmp_path / "out" / "samples.png").width == 720


def test_only_what_was_written_is_named(
    tmp_path: Path, make_config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "CamVid", train=2, val=1, test=1)
    keys = ["data=camvid", f"data.root={root}", "data.batch_size=2", "num_workers=0", f"output={tmp_path / 'out'}"]
    doctor(make_config(*keys, "samples=0", name="doctor", run_dir=False))
    assert f"wrote doctor.json to {tmp_path / 'out'}\n" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["doctor.json"]
    with pytest.raises(UserError, match=r"^samples=-1: give a number of pictures, or 0 for none$"):
        doctor(make_config(*keys, "samples=-1", name="doctor", run_dir=False))


def _truncate(root: Path) -> None:
    path = root / "train" / "0001.png"
    path.write_bytes(path.read_bytes()[:1000])


FAULTS: dict[str, Callable[[Path], object]] = {
    "image": _truncate,
    "mask": lambda root: (root / "trainannot" / "0001.png").unlink(),
    "size": lambda root: Image.new("L", (40, 30)).save(root / "trainannot" / "0001.png"),
    "ids": lambda root: Image.new("L", (80, 60), 77).save(root / "trainannot" / "0001.png"),
    "duplicate": lambda root: shutil.copy(root / "train" / "0001.png", root / "val" / "0001.png"),
    "empty split": lambda root: (root / "val.txt").write_text(""),
    "absent split": lambda root: (root / "train.txt").unlink(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named(kind: str, tmp_path: Path, examine: Callable[[], dict]) -> None:
    FAULTS[kind](write_camvid(tmp_path / "CamVid", train=4, val=2, test=1))
    result = examine()
    assert {finding["kind"] for finding in result["findings"] if finding["level"] == "fault"} == {kind}
    assert result["verdict"] == "wrong"


@pytest.mark.slow
def test_a_part_of_a_data_set_is_a_note_and_more_than_all_of_it_a_warning(
    tmp_path: Path, examine: Callable[[], dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_camvid(tmp_path / "CamVid", train=4, val=2, test=1)
    monkeypatch.setattr(CamVid, "split_sizes", {"train": 4, "val": 101, "test": 0})
    result = examine()
    sizes = {f["split"]: (f["level"], f["message"]) for f in result["findings"] if f["kind"] == "split size"}
    assert sizes["val"] == (
        "note",
        "split val has 2 of the official 101 pairs: scores are not comparable with others",
    )
    assert sizes["test"][0] == "warning"
    assert "train" not in sizes
    assert result["verdict"] == "ok"


def _relabel(root: Path, split: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in (root / f"{split}annot").glob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)


@pytest.mark.slow
def test_what_training_survives_is_a_warning(tmp_path: Path, examine: Callable[[], dict]) -> None:
    """Classes without a pixel, in all splits or in one; a mask that ignores all; one picture twice in a split."""
    root = write_camvid(tmp_path / "CamVid", train=4, val=2, test=1)
    for split in ("train", "val", "test"):
        _relabel(root, split, lambda ids: np.where(ids == 6, 11, ids))
    _relabel(root, "val", lambda ids: np.where(ids == 3, 11, ids))
    _relabel(root, "train", lambda ids: np.where(ids == 8, 11, ids))
    Image.new("L", (80, 60), 11).save(root / "trainannot" / "0002.png")
    shutil.copy(root / "train" / "0000.png", root / "train" / "0003.png")
    result = examine()
    warnings = [(f["kind"], f["split"], f["message"]) for f in result["findings"] if f["level"] == "warning"]
    for kind, split, words in (
        ("absent class", "", "class sign symbol is in no split: check the classes"),
        ("absent class", "val", "class road is in no image of split val, and left out of the mean IoU"),
        ("absent class", "train", "class car is in no image of split train, and never trained"),
        ("nothing labelled", "train", "1 masks of split train ignore every pixel, such as "),
        ("duplicate", "train", "has the same picture as"),
    ):
        assert [w for w in warnings if w[:2] == (kind, split) and words in w[2]], (kind, split, warnings)
    assert result["verdict"] == "ok"


@pytest.mark.slow
def test_images_without_public_labels_are_read_too(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    root = write_ade20k(tmp_path / "ade", train=2, val=1)
    (root / "release_test" / "testing").mkdir(parents=True)
    Image.new("RGB", (30, 20), "red").save(root / "release_test" / "testing" / "ADE_test_00000001.jpg")
    keys = ["data=ade20k", f"data.root={root}", "data.batch_size=1", "num_workers=0", f"output={tmp_path / 'out'}"]
    doctor(make_config(*keys, name="doctor", run_dir=False))
    test = json.loads((tmp_path / "out" / "doctor.json").read_text())["splits"]["test"]
    assert (test["labelled"], test["listed"], test["read"]) == (False, 1, 1)
    assert test["sizes"]["median"] == [30, 20]
    assert sum(test["pixels"].values()) == 0


@every_data_set
def test_every_official_layout_is_sound(
    name: str,
    fake: Path,  # noqa: F811
    tmp_path: Path,
    make_config: Callable[..., DictConfig],
) -> None:
    """Grayscale, CMYK and turned JPEGs, odd sizes, ignored regions: none of it is a fault."""
    keys = [f"data.root={fake}", "data.batch_size=2", "num_workers=0", f"output={tmp_path / 'out'}", "samples=1"]
    doctor(make_config(f"data={name}", *keys, name="doctor", run_dir=False))
    result = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert result["verdict"] == "ok"
    for split, count in (("train", 4), ("val", 2)):
        found = result["splits"][split]
        assert set(found["pixels"]) == set(FACTS[name]["classes"].values())
        assert min(found["pixels"].values()) > 0
        assert (found["ignored"] > 0) == bool(FACTS[name]["ignored"])
        assert max(found["images"].values()) == count


@pytest.mark.slow
def test_a_folder_and_drawn_pictures_are_read_too(tmp_path: Path, make_config: Callable[..., DictConfig]) -> None:
    write_folder(tmp_path / "mine", train=3, val=2)
    keys = ["num_workers=0", f"output={tmp_path / 'out'}", "data.batch_size=1"]
    own = ["data=folder", f"data.root={tmp_path}/mine", "data.classes=[ground,red,blue]"]
    doctor(make_config(*own, *keys, name="doctor", run_dir=False))
    mine = json.loads((tmp_path / "out" / "doctor.json").read_text())["splits"]
    assert list(mine["train"]["pixels"]) == ["ground", "red", "blue"]
    doctor(make_config("data=shapes", "limit=3", *keys, name="doctor", run_dir=False))
    drawn = json.loads((tmp_path / "out" / "doctor.json").read_text())["splits"]
    assert sum(drawn["val"]["pixels"].values()) + drawn["val"]["ignored"] == 3 * 128**2


@pytest.mark.slow
def test_the_real_camvid_by_command(command: Callable[..., Any], shared: Path, tmp_path: Path) -> None:
    done = command("doctor", "data=camvid", f"data.root={shared}/data/CamVid", "limit=40", "output=out", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if "%" in line) <= 80
    result = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert [result["splits"][split]["listed"] for split in ("train", "val")] == [367, 101]
    assert [result["splits"][split]["read"] for split in ("train", "val")] == [40, 40]
    (tmp_path / "empty").mkdir()
    broken = command("doctor", "data=camvid", "data.root=empty", "output=out")
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1), broken.stderr
