"""Score maps: results do not depend on the bands that they are computed in."""

from __future__ import annotations

import pytest
import torch

from fastfcn_pl.core.types import Box
from fastfcn_pl.evaluation import score_map
from fastfcn_pl.evaluation.score_map import ScoreMap, average_windows, sum_maps


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("band", [1, 700, 2**30])
def test_labels_do_not_depend_on_the_band(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(score_map._SCORES_PER_BAND, "cpu", band)
    x, y = _random(2, 6, 9, 11), _random(2, 6, 5, 11, seed=1)
    maps = ScoreMap.of(x), ScoreMap.of(y).resized((9, 11), True).flipped()
    found = sum_maps(maps).apply(torch.exp, logits=False).resized((67, 45), True).cropped(50, 40)
    small = torch.nn.functional.interpolate(y, (9, 11), mode="bilinear", align_corners=True).flip(-1)
    fused = torch.nn.functional.interpolate((x + small).exp(), (67, 45), mode="bilinear", align_corners=True)
    whole = fused[..., :50, :40]
    torch.testing.assert_close(found.scores(), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.labels(), whole.argmax(1))


def test_windows_are_averaged_scored_once_and_then_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(score_map._SCORES_PER_BAND, "cpu", 1)
    boxes = [Box(0, 0, 10, 8), Box(6, 0, 13, 8), Box(0, 5, 10, 13), Box(6, 5, 13, 13), Box(0, 13, 13, 40)]
    tiles = {box: _random(1, 4, box.height, box.width, seed=i) for i, box in enumerate(boxes)}
    scored: list[Box] = []

    def score(box: Box) -> ScoreMap:
        scored.append(box)
        return ScoreMap.of(tiles[box])

    found = average_windows((1, 40, 13, 4), torch.device("cpu"), boxes, score, logits=True)
    expected, count = torch.zeros(1, 4, 40, 13), torch.zeros(40, 13)
    for box, tile in tiles.items():
        expected[..., box.top : box.bottom, box.left : box.right] += tile
        count[box.top : box.bottom, box.left : box.right] += 1
    assert torch.equal(found.labels(), (expected / count).argmax(1))
    assert scored == boxes
    torch.testing.assert_close(found.scores(), expected / count)
    assert sorted(scored) == sorted(boxes + boxes[:4]), "only the last window was still cached"


def test_scores_are_float32_under_autocast() -> None:
    logits = _random(1, 3, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = ScoreMap.of(logits).resized((17, 9), False).apply(torch.exp, logits=False).scores()
    expected = torch.nn.functional.interpolate(logits.float(), (17, 9), mode="bilinear", align_corners=False).exp()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
