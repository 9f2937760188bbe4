"""Claims about studies, tested on the page of the study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastfcn_pl.config.schema import STUDIES_DIR
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.report.claims import Claim
from fastfcn_pl.tools.report.page import write
from tests.fakes.runs import write_run
from tests.tools.report.test_verdicts import pixel_counts


def _claim(folder: Path, *tests: str, **settings: Any) -> Path:
    path = folder / "claim.yaml"
    content = {
        "statement": "It holds.",
        "source": "a paper",
        "study": "own",
        "scale": "three images",
        "rows": {"jpu": "model/neck=jpu", "none": "model/neck=none", "fpn": "model/neck=fpn"},
        "tests": list(tests),
        **settings,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def _study(folder: Path, seeds: int = 3) -> Path:
    """Write runs in which jpu and fpn are equal within a point, and none is 20 points worse at half the cost."""
    for i, (neck, right, gmacs) in enumerate([("jpu", 0.7, 6.0), ("fpn", 0.699, 5.0), ("none", 0.5, 3.0)]):
        for seed in range(seeds):
            write_run(
                folder / f"{i}{seed}",
                overrides=[f"model/neck={neck}"],
                seed=seed,
                study="own",
                score=right,
                images=60,
                gmacs=gmacs,
                counts=pixel_counts(right, 10 * i + seed),
            )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        (["mIoU(jpu) >= mIoU(none)"], "**confirmed**"),
        (["mIoU(none) <= mIoU(jpu) - 5"], "**confirmed**"),
        (["mIoU(none) >= mIoU(jpu) - 5"], "**refuted**"),
        (["mIoU(jpu) >= mIoU(fpn)"], "undecided"),
        (["mIoU(jpu) >= mIoU(fpn) - 9"], "**confirmed**"),
        (["gmacs(none) <= 0.5 * gmacs(jpu)", "mIoU(jpu) >= mIoU(none)"], "**confirmed**"),
        (["gmacs(none) <= 0.4 * gmacs(jpu)", "mIoU(jpu) >= mIoU(none)"], "**refuted**"),
        (["gmacs(none) <= 0.5 * gmacs(jpu)", "mIoU(jpu) >= mIoU(fpn)"], "undecided"),
    ],
)
def test_a_claim_is_confirmed_refuted_or_undecided(tmp_path: Path, tests: list[str], verdict: str) -> None:
    _, page = write([_study(tmp_path / "runs"), _claim(tmp_path, *tests)], tmp_path)
    text = page.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| It holds."))
    assert row.split(" | ")[1] == verdict
    assert "three images | a paper |" in row


@pytest.mark.slow
def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs", seeds=1)
    _, page = write([study, _claim(tmp_path, "mIoU(jpu) >= mIoU(none)")], tmp_path)
    assert "| It holds. | undecided |" in page.read_text()


@pytest.mark.slow
def test_a_row_without_a_run_leaves_the_claim_undecided(tmp_path: Path) -> None:
    claim = _claim(tmp_path, "mIoU(a) >= mIoU(b)", rows={"a": "model/neck=jpu", "b": "model/neck=dilated"})
    _, page = write([_study(tmp_path / "runs"), claim], tmp_path)
    assert (
        "| It holds. | undecided | mIoU(a) >= mIoU(b): no single row for each name, trained with common seeds |"
        in page.read_text()
    )


@pytest.mark.slow
def test_two_rows_of_one_name_are_not_compared_with_each_other(tmp_path: Path) -> None:
    study = _study(tmp_path / "runs")
    for seed in range(3):
        options = ["model/neck=jpu", "model/head=psp"]
        counts = pixel_counts(0.4, 50 + seed)
        write_run(study / f"p{seed}", overrides=options, seed=seed, study="own", score=0.4, images=60, counts=counts)
    claim = _claim(tmp_path, "mIoU(a) >= mIoU(b)", rows={"a": "model/neck=jpu", "b": "model/neck=dilated"})
    _, page = write([study, claim], tmp_path)
    assert "| It holds. | undecided |" in page.read_text()


@pytest.mark.slow
def test_rows_are_found_by_lists_and_costs_of_other_conditions_are_not_compared(tmp_path: Path) -> None:
    rows = {"all": "model.neck.dilations=[1,2,4,8]", "one": "model.neck.dilations=[1]"}
    for i, right in enumerate((0.7, 0.5)):
        for seed in range(3):
            counts = pixel_counts(right, 10 * i + seed)
            override = list(rows.values())[i]
            folder = tmp_path / "runs" / f"{i}{seed}"
            write_run(folder, overrides=[override], seed=seed, study="own", score=right, images=60, counts=counts)
            if i:
                results = json.loads((folder / "results.json").read_text())
                (folder / "results.json").write_text(json.dumps({**results, "processor": "another"}))
    claim = _claim(tmp_path, "mIoU(all) >= mIoU(one)", "gmacs(one) <= 2 * gmacs(all)", rows=rows)
    _, page = write([tmp_path / "runs", claim], tmp_path)
    text = page.read_text()
    assert "mIoU(all) >= mIoU(one): +2" in text
    assert "gmacs(one) &lt;= 2 * gmacs(all): not measured under equal conditions" in text


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("mIoU(jpu) > mIoU(none)", "not of a form such as"),
        ("mIoU(jpu) >= gmacs(none)", "compares one of mIoU"),
        ("speed(jpu) >= speed(none)", "compares one of mIoU"),
        ("mIoU(jpu) >= 0.5 * mIoU(none)", "by a factor"),
        ("mIoU(jpu) >= mIoU(aspp)", "names the row aspp, but rows has"),
    ],
)
def test_a_test_that_cannot_be_understood_is_refused(tmp_path: Path, test: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Claim.read(_claim(tmp_path, test))


def test_the_shipped_claims_are_about_shipped_studies() -> None:
    paths = sorted((STUDIES_DIR / "claims").glob("*.yaml"))
    assert len(paths) == 5
    for path in paths:
        assert (STUDIES_DIR / f"{Claim.read(path).study}.yaml").is_file()
