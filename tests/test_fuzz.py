"""Files and values that nobody would write by hand: each ends in a result, or in one line for the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config import build, validation
from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.data.dataset import SegmentationDataset
from fastfcn_pl.data.io.image_files import ColorReader, FileSource, read_ids
from fastfcn_pl.data.io.pairs import pair_list
from fastfcn_pl.data.io.palette import voc_colors
from fastfcn_pl.engine import checkpoint
from fastfcn_pl.engine.error_messages import one_line
from tests.conftest import TINY, composed
from tests.fakes.folder import write_folder

CLASSES = 3


def _cases(count: int) -> Callable[..., Any]:
    """Run a test on `count` cases, the same ones each time."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=quiet)


def _value_or_line(job: Callable[[], Any], seconds: float = 5) -> Any:
    """Return what `job` returns, or None where it ends in an error that is one line for the user.

    It may take some `seconds` of the processor: by the clock it would take longer whenever the machine is busy.
    """
    started = time.process_time()
    try:
        return job()
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        assert line.strip()
        assert len(line.splitlines()) == 1
        return None
    finally:
        assert time.process_time() - started < seconds


# What is drawn is often right, so that the code behind the first check is reached, too.
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
ids = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1) | st.lists(st.integers(0, 2**31 - 1), min_size=1)
damage = st.none() | st.none() | st.tuples(st.integers(0, 4000), st.integers(0, 255)) | st.integers(0, 4000)


def _damaged(content: bytes, how: tuple[int, int] | int | None) -> bytes:
    """Return `content` as it is, with one byte changed, or cut off."""
    if how is None:
        return content
    if isinstance(how, int):
        return content[:how]
    place, byte = how[0] % len(content), how[1]
    return content[:place] + bytes([byte]) + content[place + 1 :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("fuzz"), train=3)


@pytest.mark.slow
@_cases(100)
@given(
    size=sizes,
    other_size=sizes,
    same=st.integers(0, 9),
    ids=ids,
    image_mode=st.sampled_from(["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "I;16", "F"]),
    mask_mode=st.sampled_from(["L", "P", "1", "I;16", "I", "RGB", "RGBA", "F"]),
    kind=st.sampled_from(["TIFF", "PNG", "TIFF", "PNG", "BMP", "WEBP", "JPEG"]),
    damage=damage,
    colors=st.booleans(),
)
def test_any_mask(
    folder: Path,
    size: tuple[int, int],
    other_size: tuple[int, int],
    same: int,
    ids: list[int],
    image_mode: str,
    mask_mode: str,
    kind: str,
    damage: tuple[int, int] | int | None,
    colors: bool,
) -> None:
    shape = size if same else other_size
    pixels = np.resize(np.array(ids, np.int64), shape)
    array = pixels.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mask_mode, np.uint8))
    mask = Image.fromarray(array)
    mask = mask if mask_mode in ("I;16", "I", "F") else mask.convert(mask_mode)
    image = Image.new(image_mode, size[::-1])
    content = BytesIO()
    try:
        image.save(folder / "image.tif")
        mask.save(content, kind)
    except (OSError, ValueError):  # a format that has no such mode
        assume(False)
    (folder / "mask").write_bytes(_damaged(content.getvalue(), damage))
    reader = ColorReader({0: 0, 0x010101: 1, 0x020202: 2, 0xFFFFFF: IGNORE}) if colors else read_ids
    spec = DatasetSpec("some", ("a", "b", "c"), voc_colors(range(CLASSES)))
    source = FileSource([(folder / "image.tif", folder / "mask")], reader, upright=True)
    sample = _value_or_line(lambda: SegmentationDataset(source, spec)[0, 0])
    if sample is not None:
        assert sample["image"].shape == (3, *sample["target"].shape)
        assert set(np.unique(sample["target"])) <= {0, 1, 2, IGNORE}


names = st.sampled_from(
    ["000", "001.jpg", "images/train/002.jpg", "images/train/001.jpg masks/train/000.png", "", "./000"]
)
lines = st.lists(names, max_size=6) | st.lists(names | st.sampled_from(["/", ".."]) | st.text(max_size=20), max_size=6)


@pytest.mark.slow
@_cases(60)
@given(lines=lines, raw=st.none() | st.binary(max_size=60), suffix=st.sampled_from(["", "", "_mask"]))
def test_any_list(folder: Path, lines: list[str], raw: bytes | None, suffix: str) -> None:
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    (folder / "list.txt").write_bytes(text if raw is None else raw)
    images, masks = folder / "images" / "train", folder / "masks" / "train"
    pairs = _value_or_line(lambda: pair_list(folder / "list.txt", folder, images, masks, suffix))
    for pair in pairs or []:
        assert all(path.is_file() for path in pair)


special = st.sampled_from(["ids", "colors", "images", ".", "???", "${root}", "${", "${oc.env:NOPE}"])
# Without / and .. no path leads out of the test's folder, and without _ no key is one of Hydra's own.
words = special | st.text(st.characters(exclude_characters="/._"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers() | words | st.booleans(), inner, max_size=4)
    ),
    max_leaves=8,
)
numbers = st.integers(0, 2) | st.integers(0, 255) | st.integers()
paths = st.fixed_dictionaries({"images": words | st.just("images/train"), "masks": st.just("masks/train")})
likely: dict[str, st.SearchStrategy[Any]] = {
    "root": words,
    "name": words,
    "classes": st.lists(words, max_size=4),
    "palette": st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=3, max_size=3),
    "remap": st.dictionaries(numbers, numbers, max_size=4),
    "masks": st.sampled_from(["ids", "colors"]),
    "mask_suffix": words,
    "splits": st.dictionaries(st.sampled_from(["train", "train", "val", "tain"]), paths | values),
}
some_values = st.sets(st.sampled_from(sorted(likely)), min_size=1, max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries({key: likely[key] | likely[key] | values for key in sorted(keys)})
)


@pytest.fixture(scope="module")
def folder_config(folder: Path) -> Iterator[DictConfig]:
    cfg = composed("data=folder", f"data.root={folder}", "data.classes=[a,b,c]", "run_dir=.")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield cfg


@pytest.mark.slow
@_cases(60)
@given(changed=some_values)
def test_any_value(folder_config: DictConfig, changed: dict[str, Any]) -> None:
    cfg = folder_config.copy()

    def read() -> SegmentationDataset:
        cfg.data.update(changed)
        validation.check(cfg)
        return build.datamodule(cfg).dataset("train")

    dataset = _value_or_line(read)
    if dataset is not None:
        assert len(dataset) == 3


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder, and the content of a checkpoint as training writes it."""
    cfg = composed(*TINY, "run_dir=.")
    module = build.module(cfg, DatasetSpec("some", ("a", "b"), voc_colors(range(2))))
    hyper_parameters = {"config": build.plain(cfg), "spec": module.spec.to_dict()}
    return tmp_path_factory.mktemp("ckpt"), {"state_dict": module.state_dict(), "hyper_parameters": hyper_parameters}


def _bytes(content: Any) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _load(path: Path) -> None:
    module = _value_or_line(lambda: checkpoint.load(path), seconds=30)
    if module is not None:
        assert module.spec.num_classes >= 1


@pytest.mark.slow
@_cases(30)
@given(
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.just(1.0) | st.floats(0, 1),
    raw=st.none() | st.binary(max_size=80),
)
def test_any_bytes_as_a_checkpoint(
    ours: tuple[Path, dict[str, Any]], flips: list[tuple[float, int]], kept: float, raw: bytes | None
) -> None:
    folder, content = ours
    stored = bytearray(_bytes(content) if raw is None else raw)
    for place, byte in flips:
        if stored:
            stored[int(place * len(stored))] = byte
    (folder / "broken.ckpt").write_bytes(stored[: int(kept * len(stored))])
    _load(folder / "broken.ckpt")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=8) | st.just(torch.zeros(2)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(0, 3) | st.text(max_size=8), inner, max_size=3)
        | st.fixed_dictionaries({}, optional={"state_dict": inner, "hyper_parameters": inner, "spec": inner})
    ),
    max_leaves=6,
)


def _changed(content: Any, path: list[int], value: Any) -> Any:
    """Return nested containers with `value` in the place that `path` leads to."""
    if not path or not isinstance(content, dict) or not content:
        return value
    key = list(content)[path[0] % len(content)]
    return {**content, key: _changed(content[key], path[1:], value)}


@pytest.mark.slow
@_cases(30)
@given(path=st.lists(st.integers(0, 30), max_size=5), value=plain)
def test_any_content_as_a_checkpoint(ours: tuple[Path, dict[str, Any]], path: list[int], value: Any) -> None:
    folder, content = ours
    torch.save(_changed(content, path, value), folder / "changed.ckpt")
    _load(folder / "changed.ckpt")


# What tells the parts of published networks from each other.
marks = [
    "pretrained.layer1.0.conv1.weight",
    *(f"pretrained.layer3.{block}.conv1.weight" for block in range(6)),
    "jpu.conv5.0.weight",
    "jpu.jum_2.conv_l.0.weight",
    "auxlayer.conv5.0.weight",
    "head.conv5.0.weight",
    "head.conv5.4.weight",
    "head.conv5.0.conv1.0.weight",
    "head.conv5.5.weight",
    "head.encmodule.encoding.0.weight",
    "head.encmodule.encoding.3.codewords",
    "head.conv6.1.weight",
    "backbone.stem.0.weight",
    *(f"backbone.layer3.{block}.conv1.weight" for block in range(6)),
    "neck.conv_layers.0.0.conv.weight",
    "neck.dilation_layers.0.0.depthwise_conv.conv.weight",
    "neck.dilation_layers.0.0.pointwise_conv.conv.weight",
    "decode_head.conv_seg.weight",
    "decode_head.psp_modules.0.1.conv.weight",
    "decode_head.aspp_modules.0.conv.weight",
    "decode_head.bottleneck.conv.weight",
    "decode_head.image_pool.1.conv.weight",
]
tensors = st.lists(st.integers(0, 4), max_size=4).map(torch.zeros)
states = st.tuples(
    st.sampled_from(["pretrained.", "backbone."]),
    st.dictionaries(st.sampled_from(marks) | st.text(max_size=5), tensors),
).map(lambda drawn: {**{name: torch.zeros(3, 3, 1, 1) for name in marks if name.startswith(drawn[0])}, **drawn[1]})


@pytest.mark.slow
@_cases(20)
@given(state=states)
def test_any_tensors_of_published_names(ours: tuple[Path, dict[str, Any]], state: dict[str, torch.Tensor]) -> None:
    folder, _ = ours
    torch.save(state, folder / "published.pth")
    _load(folder / "published.pth")
