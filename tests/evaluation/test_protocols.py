"""Evaluation protocols against plain formulas on whole tensors.

The official results are tested in `models/weights/test_published.py`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastfcn_pl.core.types import Bands, DatasetSpec, UserError
from fastfcn_pl.evaluation import protocols, score_map
from fastfcn_pl.evaluation.metrics import ConfusionMatrix
from fastfcn_pl.evaluation.protocols import encoding, logits, mmseg, mmseg_slide, native, sliding
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.training.module import SegmentationModule
from tests.conftest import ROOT
from tests.fakes.network import Network

MS = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


@pytest.fixture(params=[True, False], ids="align_corners={}".format)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return Network(num_classes=6, align_corners=request.param).eval()


def _image(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def _resized(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def test_native_is_the_argmax_of_the_logits(model: Any) -> None:
    x = _image(45, 70, batch=2)
    for size in ((45, 70), (120, 33)):
        assert torch.equal(native(model, x, size).labels(), logits(model, x, size).argmax(1))


def test_native_reports_the_memory_it_needs_before_it_starts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "_free_memory", lambda device: 2.0**20)
    seen: set[str] = set()
    model.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].device.type))
    x = _image(3200, 4000)
    # features and logits of 6 channels at stride 8: 3200 x 4000 / 64 x 6 x 4 B x 2
    with pytest.raises(
        UserError, match=r"needs about 0\.00\d+ GiB for an image of 3200x4000, but .* use protocol=sliding"
    ):
        native(model, x, (3200, 4000))
    assert seen == {"meta"}
    monkeypatch.setattr(protocols, "_free_memory", lambda device: 2.0**30)
    assert native(model, x, (20, 30)).labels().shape == (1, 20, 30)
    assert seen == {"meta", "cpu"}


def test_free_memory_is_plausible() -> None:
    free = protocols._free_memory(torch.device("cpu"))
    assert free > 2**27
    assert free < 2**50 or not os.path.exists("/proc/meminfo")


@pytest.mark.parametrize("window", [70, 1000])
def test_a_window_as_large_as_the_image_gives_the_whole_image(model: Any, window: int) -> None:
    x = _image(45, 70)
    whole = native(model, x, (45, 70)).labels()
    assert torch.equal(sliding(model, x, (45, 70), window=window, stride=7).labels(), whole)


def test_windows_without_overlap_are_tiles(model: Any) -> None:
    x = _image(64, 96)
    rows = [
        torch.cat([native(model, tile, (32, 32)).labels() for tile in row.split(32, -1)], -1) for row in x.split(32, -2)
    ]
    assert torch.equal(sliding(model, x, (64, 96), window=32, stride=32).labels(), torch.cat(rows, -2))


@pytest.mark.parametrize(("window", "stride"), [(32, 21), (24, 5), (40, 40), (17, 16)])
def test_overlapping_windows_are_averaged_and_cover_every_pixel(model: Any, window: int, stride: int) -> None:
    for height, width in ((61, 33), (20, 90), (40, 41)):
        x = _image(height, width, batch=2)
        summed, count = torch.zeros(2, 6, height, width), torch.zeros(height, width)
        for y in {min(i, max(height - window, 0)) for i in range(0, height, stride)}:
            for z in {min(i, max(width - window, 0)) for i in range(0, width, stride)}:
                here = (..., slice(y, y + window), slice(z, z + window))
                summed[here] += logits(model, x[here])
                count[here[1:]] += 1
        assert count.min() >= 1
        expected = _resized(summed / count, (77, 50), model.align_corners).argmax(1)
        assert torch.equal(sliding(model, x, (77, 50), window=window, stride=stride).labels(), expected)


def test_a_stride_that_leaves_gaps_is_refused(model: Any) -> None:
    for stride in (33, 0):
        with pytest.raises(UserError, match=f"protocol.stride={stride}: give 1 to protocol.window=32"):
            sliding(model, _image(64, 64), (64, 64), window=32, stride=stride)


def _published(model: Any, x: Tensor, size: tuple[int, int], base: int, crop: int, scales: Any, flip: bool) -> Tensor:
    """The paper's evaluation on whole tensors, with room for windows that reach over the border."""
    black = torch.tensor([-m / s for m, s in zip(model.backbone.mean, model.backbone.std, strict=True)]).view(
        1, 3, 1, 1
    )
    fused = torch.zeros(len(x), 6, *size)
    for scale in scales:
        long, ratio = math.ceil(base * scale), max(x.shape[-2:])
        height, width = (int(side * long / ratio + 0.5) for side in x.shape[-2:])
        image = _resized(x, (height, width), model.align_corners)
        canvas = black.expand(len(x), 3, height + 2 * crop, width + 2 * crop).clone()
        canvas[..., :height, :width] = image
        summed, count = torch.zeros(len(x), 6, *canvas.shape[-2:]), torch.zeros(canvas.shape[-2:])
        stride = int(crop * 2 / 3)
        for i in range(1 + max(0, math.ceil((height - crop) / stride))):
            for j in range(1 + max(0, math.ceil((width - crop) / stride))):
                here = (..., slice(i * stride, i * stride + crop), slice(j * stride, j * stride + crop))
                scores = logits(model, canvas[here])
                if flip:
                    scores = scores + logits(model, canvas[here].flip(-1)).flip(-1)
                summed[here] += scores.exp()
                count[here[1:]] += 1
        fused += _resized((summed / count)[..., :height, :width], size, model.align_corners)
    return fused


@pytest.mark.parametrize(("scales", "flip"), [([1.0], False), ([1.0], True), (MS, True)])
@pytest.mark.parametrize("shape", [(50, 80), (80, 47), (33, 33), (20, 120)])
def test_encoding_is_the_published_evaluation(
    model: Any, shape: tuple[int, int], scales: list[float], flip: bool
) -> None:
    for crop in (32, 50):
        options: dict[str, Any] = {"base_size": 52, "crop_size": crop, "scales": scales, "flip": flip}
        x = _image(*shape, batch=2)
        with torch.no_grad():
            expected = _published(model, x, shape, 52, crop, scales, flip)
        found = encoding(model, x, shape, **options).scores()
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert (encoding(model, x, shape, **options).labels() == expected.argmax(1)).double().mean() > 0.9999


@pytest.mark.parametrize("bands", [None, Bands(((0, 1, 2),), (0,), (7.0, 8, 9), (1.0, 2, 3))])
def test_encoding_pads_rgb_with_black_and_three_bands_with_their_mean(model: Any, bands: Bands | None) -> None:
    spec = DatasetSpec("six", tuple("abcdef"), ((0, 0, 0),) * 6, bands=bands)
    protocol = partial(encoding, base_size=40, crop_size=48, scales=[1.0], flip=False)
    module = SegmentationModule(model, nn.Identity(), protocol, spec, None, None, False, False, {})
    windows: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: windows.append(inputs[0]))
    image = torch.full((1, 3, 30, 40), 99, dtype=torch.uint8 if bands is None else torch.float32)
    module.predict({"image": image, "target": torch.zeros(1, 30, 40)}).labels()
    (window,) = windows
    assert window[..., :30, :40].unique().numel() == 3
    padding = module.normalize(torch.zeros(1, 3, 1, 1)) if bands is None else torch.zeros(1, 3, 1, 1)
    torch.testing.assert_close(window[..., 30:, :], padding.expand(1, 3, 18, 48))
    torch.testing.assert_close(window[..., 40:], padding.expand(1, 3, 48, 8))


def test_encoding_does_not_depend_on_the_order_of_scales(model: Any) -> None:
    scores = [
        encoding(model, _image(40, 60), (40, 60), base_size=52, crop_size=32, scales=order, flip=True).scores()
        for order in (MS, MS[::-1])
    ]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_with_flip_a_mirrored_image_gives_a_mirrored_result(model: Any) -> None:
    """For sizes that need no padding or cropping at the right, which is not symmetric."""
    x = _image(48, 48)
    flipped = [
        partial(encoding, base_size=48, crop_size=48, scales=[1.0, 0.999], flip=True),
        partial(mmseg, long_side=128, short_side=40, scales=MS, flip=True),
    ]
    for protocol in flipped:
        mirrored, result = (protocol(model, view, (60, 44)).scores() for view in (x.flip(-1), x))
        assert (mirrored.flip(-1) - result).abs().double().mean() < 1e-3 * result.double().abs().mean()
        assert not torch.equal(mirrored, result)


@pytest.mark.parametrize(
    ("shape", "expected"), [((375, 500), (512, 683)), ((500, 375), (683, 512)), ((100, 600), (341, 2048))]
)
def test_mmseg_fits_the_image_into_both_sides(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert protocols._within(_image(*shape), 2048, 512) == expected


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize(("scales", "flip"), [([1.0], False), ([0.5, 1.0, 1.5], True)])
def test_mmseg_averages_probabilities(model: Any, slide: bool, scales: list[float], flip: bool) -> None:
    x, size = _image(50, 80, batch=2), (50, 80)
    fused = torch.zeros(2, 6, *size)
    for scale in scales:
        image = _resized(x, (int(50 * scale + 0.5), int(80 * scale + 0.5)), False)
        for mirrored in (False, True)[: 1 + flip]:
            view = image.flip(-1) if mirrored else image
            if slide:
                boxes = protocols._boxes(view, 24, 16)
                summed = torch.zeros(2, 6, *view.shape[-2:])
                count = torch.zeros(view.shape[-2:])
                for box in boxes:
                    here = (..., slice(max(box.bottom - 24, 0), box.bottom), slice(max(box.right - 24, 0), box.right))
                    summed[here] += logits(model, view[here])
                    count[here[1:]] += 1
                scores = summed / count
            else:
                scores = logits(model, view)
            scores = _resized(scores, size, model.align_corners)
            fused += (scores.flip(-1) if mirrored else scores).softmax(1)
    options: dict[str, Any] = {"long_side": 80, "short_side": 50, "scales": scales, "flip": flip}
    protocol = partial(mmseg_slide, window=24, stride=16) if slide else mmseg
    found = protocol(model, x, size, **options)
    assert (found.labels() == fused.argmax(1)).double().mean() > 0.999


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        (native, {}),
        (sliding, {"window": 32, "stride": 20}),
        (encoding, {"base_size": 52, "crop_size": 32, "scales": MS, "flip": True}),
        (mmseg, {"long_side": 80, "short_side": 50, "scales": [0.5, 1.0], "flip": True}),
    ],
)
def test_probabilities_sum_to_one_and_agree_with_labels(
    model: Any, protocol: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(score_map._SCORES_PER_BAND, "cpu", 2000)
    found = protocol(model, _image(40, 60), (45, 70), **options)
    bands = list(found.probabilities())
    assert len(bands) > 1
    assert [top for top, _, _ in bands] == [0, *(bottom for _, bottom, _ in bands[:-1])]
    shares = torch.cat([band for _, _, band in bands], 1)
    assert shares.shape == (1, 45, 70, 6)
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 45, 70))
    assert torch.equal(shares.argmax(-1), found.labels())
    if protocol is native:
        torch.testing.assert_close(shares.permute(0, 3, 1, 2), logits(model, _image(40, 60), (45, 70)).softmax(1))


def test_scales_must_be_positive_and_not_empty(model: Any) -> None:
    for scales in ([], [1.0, 0.0]):
        with pytest.raises(UserError, match=r"protocol\.scales=\[.*\]: give at least one"):
            encoding(model, _image(40, 40), (40, 40), base_size=52, crop_size=32, scales=scales, flip=False)
        with pytest.raises(UserError, match=r"protocol\.scales="):
            mmseg(model, _image(40, 40), (40, 40), long_side=80, short_side=50, scales=scales, flip=False)


def test_scores_are_fused_in_float32_under_autocast(model: Any) -> None:
    options: dict[str, Any] = {"base_size": 52, "crop_size": 32, "scales": MS, "flip": True}
    x = _image(40, 60)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).logits.dtype == torch.bfloat16
        found = encoding(model, x, (40, 60), **options).scores()
    assert found.dtype == torch.float32
    exact = encoding(model, x, (40, 60), **options).scores()
    assert ((found - exact).abs() / exact).mean() < 0.02
    assert not torch.equal(found, found.bfloat16().float())


LARGE = """
import resource
from functools import partial
import torch
from torch import nn
from fastfcn_pl.evaluation import protocols
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.training.module import SegmentationModule
from tests.fakes.network import Network

side, classes = 8000, 150
spec = DatasetSpec("large", tuple(map(str, range(classes))), ((0, 0, 0),) * classes)
protocol = partial(protocols.{name}, **{options})
module = SegmentationModule(Network(classes, True), nn.Identity(), protocol, spec, None, None, False, False, {{}})
batch = {{"image": torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)}}
batch |= {{"target": torch.zeros(1, side, side, dtype=torch.uint8), "index": torch.zeros(1, dtype=torch.int64)}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.inference_mode():
    module.test_step(batch, 0)
assert module.confusion.compute()[0].sum() == side * side
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
OPTIONS = {
    "sliding": {"window": 512, "stride": 341},
    "encoding": {"base_size": 520, "crop_size": 480, "scales": [1.0, 1.75], "flip": True},
    "mmseg_slide": {"long_side": 2048, "short_side": 512, "window": 512, "stride": 341, "scales": [1.0], "flip": False},
}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_large_image_is_scored_in_4_gib(name: str) -> None:
    """From 8,000 x 8,000 pixels to the confusion matrix of 150 classes; all scores at once would take 36 GiB."""
    script = LARGE.format(name=name, options=OPTIONS[name])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4


def _published_scoring(x: Tensor, target: Tensor, classes: int) -> None:
    """Score as the official code does: argmax at full size, twice, and three histograms."""
    full = F.interpolate(x, target.shape[-2:], mode="bilinear", align_corners=True)
    for _ in range(2):
        prediction, truth = full.max(1)[1].numpy().astype("int64") + 1, target.numpy().astype("int64") + 1
    prediction = prediction * (truth > 0)
    for areas in (prediction * (prediction == truth), prediction, truth):
        np.histogram(areas, bins=classes, range=(1, classes))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_scoring_costs_a_quarter_of_the_published_code() -> None:
    x, target = torch.randn(1, 150, 64, 86), torch.randint(0, 150, (1, 512, 683), dtype=torch.uint8)
    metric = ConfusionMatrix(150)

    def ours() -> None:
        metric.update(ScoreMap.of(x).resized((512, 683), True).labels(), target)

    def seconds(function: Any) -> float:
        times = []
        for _ in range(10):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(ours) < seconds(partial(_published_scoring, x, target, 150)) / 4
