"""Every data set from its authors' archives, as found in conf/prepare, to what its data module reads."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config import build, validation
from fastfcn_pl.config.precedence import HYDRA_KEYS
from fastfcn_pl.config.schema import CONF_DIR
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.file_datamodule import FileDataModule
from fastfcn_pl.data.io import rle
from fastfcn_pl.engine.error_messages import one_line
from fastfcn_pl.tools.prepare import write_masks
from fastfcn_pl.tools.prepare.command import prepare
from tests.conftest import composed
from tests.fakes.archives import run_lengths, run_lengths_as_text, write_archives
from tests.fakes.cityscapes import write_cityscapes
from tests.support.file_server import Site, serving

SOURCES = sorted(path.stem for path in (CONF_DIR / "prepare").glob("*.yaml") if "archives:" in path.read_text())
WITH_ACCOUNT = [name for name in SOURCES if "account: true" in (CONF_DIR / "prepare" / f"{name}.yaml").read_text()]
MADE = {
    "pascal_context": "SegmentationClassContext",
    "pascal_context_json": "SegmentationClassContext",
    "pascal_voc": "SegmentationClassAug",
}
"""The folders of masks that are converted."""


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return tmp_path / "original"


def config(source: str, root: Path, *overrides: str) -> DictConfig:
    """Compose as `python -m fastfcn_pl.prepare` does, without the checksums, which are of the real archives."""
    name = source.removesuffix("_json")
    keys = [f"data={name}", f"prepare={source}", f"data.root={root}", "num_workers=0", "download.wait=0.01"]
    cfg = composed(*keys, *overrides, name="prepare")
    for archive in cfg.prepare.archives.values():
        archive.checksum = None
    return cfg


def data(cfg: DictConfig) -> FileDataModule:
    return build.build(cfg.data, 0)


def _tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.suffix != ".txt"}


@pytest.mark.parametrize("source", SOURCES)
def test_option_fits_its_signature(source: str, tmp_path: Path) -> None:
    cfg = config(source, tmp_path)
    validation.check(cfg)
    for path, node in validation._targets(cfg, ""):
        keys = {str(key) for key in node} - set(HYDRA_KEYS)
        assert keys == validation.parameters(get_object(node["_target_"]))[0], path
    option = yaml.safe_load((CONF_DIR / "prepare" / f"{source}.yaml").read_text())
    digits = {"md5": 32, "sha1": 40, "sha256": 64}
    for archive in option["archives"].values():
        algorithm, _, value = (archive.get("checksum") or "md5:" + 32 * "0").partition(":")
        assert len(value) == digits[algorithm]
        assert int(value, 16) >= 0


@pytest.mark.parametrize("source", SOURCES)
def test_from_a_mirror_to_what_is_read(source: str, original: Path, tmp_path: Path) -> None:
    """The data set is as it was before it was packed; a second run downloads nothing and writes no mask."""
    name, root = source.removesuffix("_json"), tmp_path / "new"
    folder = write_archives(name, original, tmp_path / "archives")
    with serving(Site(_tree(folder), cuts=[5000])) as site:
        cfg = config(source, root, f"mirror={site.url}/")
        prepare(cfg)
        requests = len(site.asked)
        before = _times(root)
        prepare(cfg)
        assert len(site.asked) == requests
    assert _times(root) == before
    assert not [path for path in root.rglob("*") if path.name.startswith(".") or path.suffix in (".part", ".version")]
    module, reference = data(cfg), data(config(source, original))
    for split in module.split_sizes:
        pairs = module.files(split)
        assert [[p.relative_to(root) for p in pair] for pair in pairs] == [
            [p.relative_to(original) for p in pair] for pair in reference.files(split)
        ]
        for i in range(len(pairs)):
            one, other = module.dataset(split)[0, i], reference.dataset(split)[0, i]
            assert np.array_equal(one["image"], other["image"])
            assert np.array_equal(one["target"], other["target"])


@pytest.mark.slow
def test_both_forms_of_pascal_contexts_labels_give_the_same_pngs(original: Path, tmp_path: Path) -> None:
    folder, made = write_archives("pascal_context", original, tmp_path / "archives"), []
    for source in ("pascal_context", "pascal_context_json"):
        prepare(config(source, tmp_path / source, f"archives={folder}"))
        kept = (MADE[source], "ImageSets/SegmentationContext")
        made.append({name: content for path in kept for name, content in _tree(tmp_path / source / path).items()})
    assert made[0] == made[1]
    assert len(made[0]) == 8  # 6 masks, 2 lists


@pytest.mark.parametrize("source", MADE)
def test_only_what_is_missing_is_converted(source: str, original: Path, tmp_path: Path) -> None:
    root = tmp_path / "new"
    folder = write_archives(source.removesuffix("_json"), original, tmp_path / "archives")
    cfg = config(source, root, f"archives={folder}")
    prepare(cfg)
    kept, lost, *_ = sorted((root / MADE[source]).iterdir())
    content, kept_at = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    prepare(cfg)
    assert (lost.read_bytes(), kept.stat().st_mtime_ns) == (content, kept_at)


@pytest.fixture(params=MADE)
def unconverted(request: pytest.FixtureRequest, original: Path, tmp_path: Path) -> tuple[DictConfig, Path]:
    """A data set that is whole but for its converted masks, whose folder is beside, and for the list of them."""
    folder = write_archives(request.param.removesuffix("_json"), original, tmp_path / "archives")
    cfg = config(request.param, tmp_path / "new", f"archives={folder}")
    prepare(cfg)
    masks = tmp_path / "new" / MADE[request.param]
    shutil.rmtree(masks)
    for name in ("SegmentationContext/train.txt", "SegmentationContext/val.txt", "Segmentation/trainaug.txt"):
        (tmp_path / "new" / "ImageSets" / name).unlink(missing_ok=True)
    return cfg, masks


def _converted(cfg: DictConfig) -> int:
    module = data(cfg)
    return len([mask for split in module.split_sizes for _, mask in module.files(split) if mask.exists()])


def test_a_conversion_that_was_stopped_is_not_taken_for_done_and_goes_on(
    unconverted: tuple[DictConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, masks = unconverted
    write = write_masks._write

    def stop_at_the_third(*arguments: Any) -> None:
        if len(list(masks.glob("*.png"))) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(write_masks, "_write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(cfg)
    assert len(list(masks.iterdir())) == 2
    with pytest.raises(UserError, match=r"\.txt is missing: run python -m fastfcn_pl\.prepare"):
        _converted(cfg)
    first = next(iter(sorted(masks.iterdir())))
    (masks / ".hidden.png").write_bytes(b"half")  # what a killed process leaves
    kept_at = first.stat().st_mtime_ns
    monkeypatch.undo()
    prepare(cfg)
    assert first.stat().st_mtime_ns == kept_at
    assert _converted(cfg) >= 6


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size is Linux's")
def test_a_conversion_onto_a_full_disk_is_one_line_and_another_run_heals(unconverted: tuple[DictConfig, Path]) -> None:
    cfg, masks = unconverted
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(
            UserError, match=rf"^{masks}/\S+\.png cannot be written \(File too large\): check permissions"
        ):
            prepare(cfg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(masks.iterdir())
    prepare(cfg)
    assert _converted(cfg) >= 6


def test_what_is_no_folder_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "file.zip").touch()
    (tmp_path / "disk").symlink_to(tmp_path / "not mounted")
    for key, name in (("archives", "file.zip"), ("data.root", "file.zip"), ("data.root", "disk")):
        with pytest.raises(UserError, match=rf"^{key}={tmp_path / name} is not a folder: give a folder"):
            prepare(config("camvid", tmp_path / "new", f"{key}={tmp_path / name}"))


def test_a_tilde_in_quotes_is_the_home_folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archives("camvid", original, tmp_path / "home" / "archives")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cfg = config("camvid", tmp_path, "data.root='~/CamVid'", "archives='~/archives'")
    prepare(cfg)
    assert data(cfg).files("val")[0][0].is_relative_to(tmp_path / "home" / "CamVid")


@pytest.mark.parametrize("source", WITH_ACCOUNT)
def test_what_needs_an_account_says_what_to_fetch_and_takes_it_from_disk(
    source: str, original: Path, tmp_path: Path
) -> None:
    folder, elsewhere = write_archives(source, original, tmp_path / "archives"), tmp_path / "empty"
    with pytest.raises(
        UserError, match=rf"_trainvaltest\.zip and .*_trainvaltest\.zip .*register.*put .* into {elsewhere}"
    ):
        prepare(config(source, tmp_path / "new", f"archives={elsewhere}"))
    prepare(config(source, tmp_path / "new", f"archives={folder}"))
    assert len(data(config(source, tmp_path / "new")).files("train")) == 4


def test_cityscapes_train_ids_are_made(original: Path, tmp_path: Path) -> None:
    folder, keys = write_archives("cityscapes", original, tmp_path / "archives"), ["data.labels=labelTrainIds"]
    cfg = config("cityscapes", tmp_path / "new", f"archives={folder}", *keys)
    prepare(cfg)
    by_id = data(config("cityscapes", original))
    assert len(data(cfg).files("val")) == 2
    for i in range(2):
        assert np.array_equal(data(cfg).dataset("val")[0, i]["target"], by_id.dataset("val")[0, i]["target"])
    official = write_cityscapes(tmp_path / "official", labels="labelTrainIds")
    assert {p.name for _, p in data(cfg).files("val")} == {p.name for p in official.rglob("*munster*TrainIds.png")}


def test_a_truncated_archive_is_set_aside_and_another_run_heals(original: Path, tmp_path: Path) -> None:
    folder, root = write_archives("ade20k", original, tmp_path / "archives"), tmp_path / "new"
    archive = folder / "ADEChallengeData2016.zip"
    with serving(Site(_tree(folder))) as site:
        archive.write_bytes(archive.read_bytes()[:-1000])
        cfg = config("ade20k", root, f"archives={folder}", f"mirror={site.url}")
        with pytest.raises(
            UserError, match=rf"{archive} cannot be unpacked .* renamed to {archive.name}\.broken; run ag"
        ):
            prepare(cfg)
        assert not archive.exists()
        assert not _tree(root)
        prepare(cfg)
    assert len(data(cfg).files("train")) == 4


def test_an_archive_on_disk_is_checked(original: Path, tmp_path: Path) -> None:
    folder = write_archives("ade20k", original, tmp_path / "archives")
    cfg = config("ade20k", tmp_path / "new", f"archives={folder}")
    cfg.prepare.archives.all.checksum = "md5:" + 32 * "0"
    with pytest.raises(UserError, match=r"ADEChallengeData2016\.zip is not the expected file \(md5 is "):
        prepare(cfg)
    assert not (tmp_path / "new").exists()


def test_damaged_labels_are_named(original: Path, tmp_path: Path) -> None:
    folder, root = write_archives("pascal_context", original, tmp_path / "archives"), tmp_path / "new"
    cfg = config("pascal_context", root, f"archives={folder}")
    prepare(cfg)
    mat = next((root / "LabelMaps459" / "trainval").iterdir())
    (root / "SegmentationClassContext" / f"{mat.stem}.png").unlink()
    mat.write_bytes(mat.read_bytes()[:200])
    with pytest.raises(UserError, match=rf"{mat} has no readable label map LabelMap .*: remove the folder"):
        prepare(cfg)
    detail = config("pascal_context_json", root, f"archives={folder}")
    (folder / "trainval_merged.json").write_text('{"images": []}')
    with pytest.raises(
        UserError, match=r"trainval_merged\.json is not the JSON of PASCAL Context .*annos_segmentation"
    ):
        prepare(detail)


def test_run_lengths() -> None:
    """The text is of a mask of 70x50 in the README of armengot/COCOtoolsFORK, written by COCO's own encoder."""
    text = (
        "0g05b08J4M2N2NA^O1`0OCO=0E090H080IO68DH;>@C>a0_O_O`0j0OWOF<:CM72I24NL43JM92FN;1ENKO72L0LO91J0MO92INO0NO122OO0"
        "M031O000NO31OO11MO40N011MO41MO21L06OL021L06OL021L06OL021L060J040L060J040L060J040L060J040L060J040L060J040L060KO"
        "31L060KO31L06OL021L06OL021L06OL021MO41MO21MO40N100NO310O00M0310O00NO1220NO92IONO91KOMO72M0<1EO:2GN63KM34OLM73J"
        "F<;=1G_O_Ob0=AC`07EH=1IO71H090F0:1DO>1_O1b0>2N2N3L6H]O"
    )
    mask = rle.decode((50, 70), text)  # of another size, it would raise
    assert run_lengths_as_text(mask) == text
    assert np.array_equal(rle.decode((50, 70), run_lengths(mask)), mask)
    with pytest.raises(ValueError, match="runs of 3500 pixels for 70x51"):
        rle.decode((51, 70), text)
    for drawn in (mask, ~mask, np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        assert np.array_equal(rle.decode(drawn.shape, rle.encode(drawn)), drawn)
    assert rle.encode(mask) == text
    assert rle.decode((2, 3), [2, 3, 1]).tolist() == [[False, True, True], [False, True, False]]


@pytest.mark.slow
def test_the_command(command: Callable[..., subprocess.CompletedProcess[str]], original: Path, tmp_path: Path) -> None:
    """Converts in worker processes, prints the splits, and ends in one line if there is nothing to prepare."""
    folder = write_archives("pascal_context", original, tmp_path / "archives")
    checksum = "prepare.archives.images.checksum=null"
    arguments = ["data=pascal_context", f"archives={folder}", "data.root=new", checksum, "num_workers=2"]
    done = command("prepare", *arguments)
    assert done.returncode == 0, done.stderr
    assert "train: 4 images (of 4998 officially)" in done.stdout
    done = command("prepare", "data=shapes")
    assert done.returncode == 1
    assert done.stderr.startswith("error: data=shapes needs no preparation; only ade20k, ")
    assert len(done.stderr.splitlines()) == 1


def test_the_old_name_of_the_group_is_answered_with_the_new_one() -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("prepare", ["data=pascal_context", "distribution=pascal_context_json"])
    assert one_line(caught.value) == "distribution=... is now prepare=..."


@pytest.mark.parametrize("kind", ["folder", "FIFO"])
def test_what_is_no_file_in_an_archives_place_is_said(kind: str, original: Path, tmp_path: Path) -> None:
    folder = write_archives("ade20k", original, tmp_path / "archives")
    archive = folder / "ADEChallengeData2016.zip"
    archive.unlink()
    (Path.mkdir if kind == "folder" else os.mkfifo)(archive)
    with pytest.raises(
        UserError, match=rf"^{archive} is not a file: remove it, or choose another folder with archives="
    ):
        prepare(config("ade20k", tmp_path / "new", f"archives={folder}"))
    assert not (tmp_path / "new").exists()


def test_a_file_where_an_archive_should_have_a_folder_is_not_taken(original: Path, tmp_path: Path) -> None:
    folder, root = write_archives("ade20k", original, tmp_path / "archives"), tmp_path / "new"
    with zipfile.ZipFile(folder / "ADEChallengeData2016.zip", "w") as archive:
        for name in ("images", "annotations"):
            archive.writestr(f"ADEChallengeData2016/{name}", b"")
    with pytest.raises(
        UserError, match=r"2016\.zip has a file ADEChallengeData2016/images instead of a folder: it was renamed"
    ):
        prepare(config("ade20k", root, f"archives={folder}"))
    assert not root.exists() or not _tree(root)


GARBAGE = {
    "../../../evil": "which is not a valid image name",
    "a b\n/etc/passwd": "which is not a valid image name",
    "caf\u00e9".encode("latin-1"): "is not UTF-8",
    "\ufeff2008".encode("utf-16"): "it is stored as UTF-16",
    b"\x89PNG\r\n\x1a\n\0\0": "zero bytes",
    "n" * 5000: "which is not a valid image name",
}


@pytest.mark.parametrize("content", GARBAGE)
def test_a_list_of_garbage_in_an_archive_is_one_line(content: str | bytes, original: Path, tmp_path: Path) -> None:
    folder, root = write_archives("pascal_context", original, tmp_path / "archives"), tmp_path / "new"
    cfg = config("pascal_context", root, f"archives={folder}")
    prepare(cfg)
    listing = root / "ImageSets" / "Main" / "train.txt"
    listing.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"{GARBAGE[content]}.*: remove the folder Main and run again") as caught:
        prepare(cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"images": 5},
        {"images": [1]},
        {"images": [{"image_id": 1, "height": 9, "width": 9, "file_name": 7, "phase": "train"}]},
        {"images": [{"image_id": 1, "height": 9, "width": 9, "file_name": "..", "phase": "train"}]},
        {"images": [{"image_id": 1, "height": 10**9, "width": 9, "file_name": "a.jpg", "phase": "train"}]},
        {"images": [{"image_id": 1, "height": "9", "width": 9, "file_name": "a.jpg", "phase": "train"}]},
        {"annos_segmentation": [{"image_id": 20, "category_id": 2, "segmentation": {"counts": "5"}}]},
        {"annos_segmentation": [{"image_id": {}, "category_id": 2, "segmentation": {"counts": "5"}}]},
    ],
    ids=str,
)
def test_a_json_of_garbage_is_one_line(change: dict[str, Any], original: Path, tmp_path: Path) -> None:
    folder, root = write_archives("pascal_context", original, tmp_path / "archives"), tmp_path / "new"
    content = json.loads((folder / "trainval_merged.json").read_text())
    content |= {"annos_segmentation": []} | change
    (folder / "trainval_merged.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is not the JSON of PASCAL Context|segments of image a are damaged") as caught:
        prepare(config("pascal_context_json", root, f"archives={folder}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x89PNG", "three colours", "16 bits"], ids=str)
def test_a_damaged_mask_of_cityscapes_is_one_line(content: bytes | str, original: Path, tmp_path: Path) -> None:
    folder = write_archives("cityscapes", original, tmp_path / "archives")
    cfg = config("cityscapes", tmp_path / "new", f"archives={folder}", "data.labels=labelTrainIds")
    prepare(cfg)
    mask = next(iter(sorted((tmp_path / "new" / "gtFine").rglob("*_labelIds.png"))))
    mask.with_name(mask.name.replace("labelIds", "labelTrainIds")).unlink()
    (mask.parent / f"._{mask.name}").write_bytes(b"of macOS")
    if isinstance(content, bytes):
        mask.write_bytes(content)
    else:
        pixels = np.zeros((9, 9, 3), np.uint8) if content == "three colours" else np.zeros((9, 9), np.uint16)
        Image.fromarray(pixels).save(mask)
    with pytest.raises(UserError, match=rf"^{mask} (cannot be read as a PNG|is not a map of 8-bit ids)"):
        prepare(cfg)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "pascal_context_json"])
def test_what_macos_leaves_beside_files_is_no_image(name: str, original: Path, tmp_path: Path) -> None:
    write_archives(name, original, tmp_path / "archives")
    module = data(config(name, original))
    counts = {split: len(module.files(split)) for split in ("train", "val")}
    for path in [path for path in original.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"of macOS")
    assert {split: len(module.files(split)) for split in ("train", "val")} == counts
