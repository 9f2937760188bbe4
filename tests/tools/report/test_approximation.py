"""The table of necks that approximate a dilated twin's features, and the mIoU of the same necks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.report.page import write
from tests.fakes.runs import write_run

IMAGES = 60
ERRORS = {"jpu": 0.2, "fpn": 0.3, "bilinear": 0.5, "none": 0.51}
MIOUS = {"jpu": 0.6, "fpn": 0.62, "bilinear": 0.45, "none": 0.4}


def _sums(error: float, seed: int) -> np.ndarray:
    """Return sums of images whose difficulty is the same for all necks and seeds."""
    variance = np.random.default_rng(9).gamma(5, 20, IMAGES)
    squared = variance * (error + np.random.default_rng(seed).normal(0, 0.01, IMAGES))
    return np.stack([squared, variance, 90 * (1 - error) * np.ones(IMAGES), 90 * np.ones(IMAGES)], 1)


def _model(neck: str, kind: str) -> dict[str, Any]:
    return {"_target_": f"fastfcn_pl.models.{kind}", "neck": {"_target_": neck}, "backbone": {"name": "resnet18"}}


def _premise(folder: Path, seeds: int = 3, errors: dict[str, float] = ERRORS) -> Path:
    for i, (neck, error) in enumerate(errors.items()):
        for seed in range(seeds):
            run = write_run(
                folder / f"{i}{seed}",
                overrides=[f"model/neck={neck}"],
                seed=seed,
                study="premise",
                score=0.3,
                images=IMAGES,
                model=_model(neck, "approximation.Approximation"),
            )
            np.savez(run / "approximation.npz", sums=_sums(error, 10 * i + seed), position=np.arange(IMAGES))
    return folder


def _scored(folder: Path, mious: dict[str, float] = MIOUS) -> Path:
    for i, (neck, score) in enumerate(mious.items()):
        for seed in range(2):
            write_run(
                folder / f"{i}{seed}",
                overrides=[f"model/neck={neck}"],
                seed=seed,
                score=score + 0.01 * seed,
                images=IMAGES,
                model=_model(neck, "segmenter.Segmenter"),
            )
    return folder


def _table(text: str) -> list[list[str]]:
    lines = text[text.index("| neck | n | 1 - R²") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


@pytest.mark.slow
def test_the_table_has_errors_intervals_and_verdicts(tmp_path: Path) -> None:
    _, page = write([_premise(tmp_path / "runs")], tmp_path)
    header, _, first, second, *_ = _table(page.read_text())
    assert header == ["neck", "n", "1 - R²", "cosine", "R² less jpu's", "verdict"]
    errors = [sums[:, 0].sum() / sums[:, 1].sum() for sums in (_sums(0.2, seed) for seed in range(3))]
    assert first == ["jpu", "3", f"{np.mean(errors):.4f} ± {np.std(errors, ddof=1):.4f}", "0.8000 ± 0.0000", "-", ""]
    assert second[0] == "fpn"
    assert float(second[4].strip("*").split()[0]) == pytest.approx(-0.1, abs=0.01)
    assert second[5] == "worse"


@pytest.mark.slow
def test_mious_of_the_same_necks_stand_beside_with_their_rank_correlation(tmp_path: Path) -> None:
    folders = [_premise(tmp_path / "premise"), _scored(tmp_path / "scored")]
    html, page = write(folders, tmp_path)
    text = page.read_text()
    header, _, *rows = _table(text)
    assert header[-1] == "mIoU, neck_ablation"
    assert [(row[0], row[-1]) for row in rows] == [
        ("jpu", "60.50"),
        ("fpn", "62.50"),
        ("bilinear", "45.50"),
        ("none", "40.50"),
    ]
    rho = stats.spearmanr(list(ERRORS.values()), list(MIOUS.values())).statistic
    assert f"in neck_ablation: {rho:.2f} over n = 4 necks, p = 0.33 by permutation" in text  # 4 * 2 of 4! orders
    assert "over n = 4 necks" in html.read_text()
    assert "features of the dilated twin" in text
    assert text.count("| neck | n | 1 - R²") == 1


@pytest.mark.slow
def test_necks_of_another_width_or_backbone_are_others(tmp_path: Path) -> None:
    study = _premise(tmp_path / "premise", seeds=1)
    for i, changed in enumerate(({"width": 8}, {})):
        model = _model("jpu", "segmenter.Segmenter")
        model["neck"] |= changed
        model["backbone"] = {"name": "resnet18" if changed else "resnet34"}
        write_run(tmp_path / "scored" / str(i), images=IMAGES, model=model)
    _, page = write([study, tmp_path / "scored"], tmp_path)
    assert _table(page.read_text())[0][-1] == "verdict"


@pytest.mark.slow
def test_two_necks_are_too_few_for_a_correlation(tmp_path: Path) -> None:
    two = {"jpu": 0.5, "fpn": 0.4}
    _, page = write([_premise(tmp_path / "premise"), _scored(tmp_path / "scored", two)], tmp_path)
    assert "Two necks of neck_ablation are too few for a correlation." in page.read_text()


def test_one_seed_shows_no_difference_but_has_an_interval(tmp_path: Path) -> None:
    _, page = write([_premise(tmp_path / "runs", seeds=1)], tmp_path)
    second = _table(page.read_text())[3]
    assert second[5] == "not shown"
    low, high = (float(edge) for edge in second[4].partition("(")[2][:-1].split(" to "))
    assert -0.15 < low < high < -0.05


def test_runs_of_other_images_are_not_compared(tmp_path: Path) -> None:
    study = _premise(tmp_path / "runs", seeds=1)
    np.savez(study / "00" / "approximation.npz", sums=_sums(0.2, 0), position=np.arange(1, IMAGES + 1))
    _, page = write([study], tmp_path)
    assert {row[4] for row in _table(page.read_text())[2:]} == {"-"}


def test_a_page_without_approximations_has_no_table(tmp_path: Path) -> None:
    _, page = write([_scored(tmp_path / "scored")], tmp_path)
    assert "R²" not in page.read_text()


@pytest.mark.parametrize(
    "content",
    [
        {"sums": np.zeros((IMAGES, 3)), "position": np.arange(IMAGES)},
        {"sums": np.full((IMAGES, 4), np.nan), "position": np.arange(IMAGES)},
        {"sums": -np.ones((IMAGES, 4)), "position": np.arange(IMAGES)},
        {"sums": np.ones((IMAGES, 4), "<U1"), "position": np.arange(IMAGES)},
        {"sums": np.ones((9 * IMAGES, 4)), "position": np.arange(IMAGES)},
        {"sums": np.ones((IMAGES, 4)), "position": np.float64(1)},
        {"sums": np.array([None]), "position": np.arange(IMAGES)},
        None,
    ],
    ids=["columns", "nan", "negative", "text", "large", "no positions", "pickle", "no zip file"],
)
def test_damaged_sums_are_named(tmp_path: Path, content: dict[str, Any] | None) -> None:
    path = _premise(tmp_path / "runs", seeds=1) / "00" / "approximation.npz"
    path.write_bytes(b"PK") if content is None else np.savez(path, **content)
    with pytest.raises(UserError, match=r"approximation\.npz does not hold the approximation of this run"):
        write([tmp_path / "runs"], tmp_path)
