"""Verdicts on the page of a study."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.report.page import write
from tests.fakes.runs import write_run


def pixel_counts(right: float, seed: int, images: int = 60) -> np.ndarray:
    """Return counts of images of 100 pixels a class, of which a share of about `right` is correct."""
    rng = np.random.default_rng(seed)
    shares = np.random.default_rng(9).normal(0, 0.05, (images, 3)) + rng.normal(right, 0.01, (images, 3))
    correct = np.round(100 * shares.clip(0, 1)).astype(np.int64)
    return np.stack([correct, np.full_like(correct, 100), np.full_like(correct, 100)], 1)


def _study(folder: Path, rights: dict[str, float], seeds: int = 3, **settings: object) -> Path:
    for i, (neck, right) in enumerate(rights.items()):
        for seed in range(seeds):
            write_run(
                folder / f"{i}{seed}",
                overrides=[f"model/neck={neck}"],
                seed=seed,
                score=right,
                images=60,
                gmacs=5.0 + i,
                counts=pixel_counts(right + 0.002 * seed, 10 * i + seed),
                **settings,  # type: ignore[arg-type]
            )
    return folder


def _section(page: Path, heading: str) -> list[list[str]]:
    lines = page.read_text().partition(f"## {heading}\n")[2].splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]


@pytest.mark.slow
def test_a_large_difference_is_shown_and_a_small_one_is_not(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "fpn": 0.698, "none": 0.5}, margin=3)
    _, page = write([study], tmp_path)
    header, _, first, second, *matrix = _section(page, "Differences")
    assert header == ["compared with jpu", "mIoU, points", "95 % interval", "verdict", "more seeds to decide"]
    assert (first[0], first[3]) == ("fpn", "equivalent")
    assert (second[0], second[3], second[4]) == ("none", "worse", "")
    assert second[1].startswith("**-2")
    assert [row[0] for row in matrix[2:5]] == ["jpu", "fpn", "none"]
    assert matrix[2][1:] == ["", "=", "**+**"]
    text = page.read_text()
    assert "| jpu | 3 | 70.00" in text  # in bold only if it were better than fpn, too
    assert "paired by seed and image" in text


@pytest.mark.slow
def test_the_page_begins_with_the_answer(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "fpn": 0.698, "bilinear": 0.6, "none": 0.5}, margin=3)
    html, page = write([study], tmp_path)
    answer = (
        "jpu has the highest mIoU, 70.00 %, the mean of 3 seeds. "
        "Compared with jpu, bilinear (1.40 of its GMACs), none (1.60 of its GMACs) are worse; "
        "fpn (1.20 of its GMACs) is equivalent."
    )
    assert f"**Answer.** {answer}" in page.read_text().partition("|")[0]
    assert answer in html.read_text()


def test_charts_show_the_interval_over_seeds_and_images(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5})
    _, page = write([study], tmp_path)
    assert "Bars are 95 % intervals over seeds and images." in page.read_text()


def test_the_best_is_bold_if_it_is_better_than_each_other(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "fpn": 0.6})
    _, page = write([study], tmp_path)
    assert "| jpu | 3 | **70.00" in page.read_text()


@pytest.mark.slow
def test_the_study_names_the_baseline(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5}, baseline="model/neck=none")
    _, page = write([study], tmp_path)
    header, _, row = _section(page, "Differences")[:3]
    assert (header[0], row[0], row[3]) == ("compared with none", "jpu", "better")
    other = _study(tmp_path / "other", {"jpu": 0.7, "none": 0.5}, baseline="model/neck=fpn")
    _, page = write([other], tmp_path)
    assert "No verdicts: the baseline model/neck=fpn has no finished run here." in page.read_text()


def test_a_margin_of_zero_is_zero_and_splits_no_rows(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5}, margin=0)
    write_run(study / "more", overrides=["model/neck=jpu"], seed=3, score=0.7, images=60, counts=pixel_counts(0.7, 3))
    _, page = write([study], tmp_path)
    assert "equivalent is within 0 points" in page.read_text()
    assert "| jpu | 4 | " in page.read_text()


def test_only_the_group_that_is_shown_better_is_bold_in_a_class(tmp_path: Path) -> None:
    """Runs with seeds that others lack count for the mean, and not for the verdict."""
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5})
    for seed in (3, 4, 5):
        low = pixel_counts(0.1, seed)
        write_run(study / f"low{seed}", overrides=["model/neck=jpu"], seed=seed, score=0.1, images=60, counts=low)
    _, page = write([study], tmp_path)
    assert not any("**" in cell for row in _section(page, "IoU by class, in percent")[2:5] for cell in row)


def test_a_single_seed_shows_nothing(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5}, seeds=1)
    _, page = write([study], tmp_path)
    assert _section(page, "Differences")[2][3] == "not shown"
    assert "One seed shows nothing about others" in page.read_text()


def test_runs_from_before_the_counts_make_a_page_without_verdicts(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5})
    (study / "00" / "images.npz").unlink()
    _, page = write([study], tmp_path)
    text = page.read_text()
    assert "No verdicts: these runs were scored before the counts of each image were kept." in text
    assert "**70" not in text


def test_runs_that_were_scored_on_other_images_are_not_compared(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5})
    path = study / "00" / "images.npz"
    np.savez_compressed(path, counts=np.load(path)["counts"], position=np.arange(1, 61))
    _, page = write([study], tmp_path)
    assert "No verdicts: the runs were scored on different images." in page.read_text()


@pytest.mark.parametrize(
    "content",
    [
        {"counts": np.zeros((60, 3, 3)), "position": np.arange(60)},
        {"counts": np.ones((60, 3, 2), np.int64), "position": np.arange(60)},
        {"counts": np.full((60, 3, 3), [[2], [1], [1]]), "position": np.arange(60)},
        {"counts": np.ones((6000, 3, 3), np.int64), "position": np.arange(60)},
        {"counts": np.array([None]), "position": np.arange(60)},
        {"other": np.arange(60)},
        None,
    ],
    ids=["floats", "classes", "contradiction", "large", "pickle", "keys", "no zip file"],
)
def test_damaged_counts_are_named(tmp_path: Path, content: dict[str, np.ndarray] | None) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "none": 0.5}, seeds=1)
    path = study / "00" / "images.npz"
    path.write_bytes(b"PK") if content is None else np.savez_compressed(path, **content)
    with pytest.raises(UserError, match=r"images\.npz does not hold the pixel counts of this run"):
        write([study], tmp_path)


def test_a_page_made_again_is_the_same(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", {"jpu": 0.7, "fpn": 0.69, "none": 0.5})
    first = write([study], tmp_path)[1].read_text()
    moved = tmp_path / "elsewhere" / "runs"
    shutil.copytree(study, moved)
    assert write([moved], tmp_path)[1].read_text() == first
