"""Tables of diagnostics on the page of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.report.page import write
from tests.fakes.runs import write_run
from tests.tools.report.test_verdicts import pixel_counts


def _run(folder: Path, neck: str, seed: int, found: Any = None, **settings: Any) -> None:
    run = write_run(folder, overrides=[f"model/neck={neck}"], seed=seed, images=60, **settings)
    if found is not None:
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps({**results, "diagnostics": found}))


def _found(error: float | None) -> dict[str, Any]:
    return {
        "boundary_bands": {
            "scores": {"error by distance": {"0-1 px": error, ">1 px": 0.05}},
            "details": {},
            "classes": {},
        },
        "stride_ceiling": {"scores": {"mIoU, reduced": {"stride 8": 0.9}}},
    }


def test_rows_have_means_over_their_seeds(tmp_path: Path) -> None:
    for seed, error in enumerate((0.4, 0.5)):
        _run(tmp_path / f"a{seed}", "jpu", seed, _found(error))
        _run(tmp_path / f"b{seed}", "fpn", seed, _found(None))
    _run(tmp_path / "c0", "none", 0)  # written before there were diagnostics
    html, page = write([tmp_path], tmp_path / "page")
    text = page.read_text().partition("## Diagnostics, in percent\n")[2]
    assert "| boundary bands: error by distance | 0-1 px | >1 px |" in text
    assert "| jpu | 45.00 ± 7.07 | 5.00 ± 0.00 |" in text
    assert "| fpn | - | 5.00 ± 0.00 |" in text
    assert "| none |" not in text.partition("## Each run")[0]
    assert "| all | 90.00 ± 0.00 |" in text  # the labels are the same in each row
    assert "Diagnostics, in percent" in html.read_text()
    assert '<th class="number"><button type="button">0-1 px' in html.read_text()


def test_fine_grained_scores_come_from_the_images_of_a_run(tmp_path: Path) -> None:
    _run(tmp_path / "a", "jpu", 0, counts=pixel_counts(0.7, 0))
    _run(tmp_path / "b", "fpn", 0, {"fine_grained": {"scores": {"mIoU": {"mIoU^I": 0.25}}}})
    _, page = write([tmp_path], tmp_path / "page")
    text = page.read_text().partition("## Diagnostics, in percent\n")[2]
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")][:4]
    assert header == "| fine grained: mIoU | mIoU^I | mIoU^C | mIoU^I of the worst 10 % | mIoU^C of the worst 10 % |"
    assert [row.split(" | ")[0] for row in rows] == ["| jpu", "| fpn"]
    assert 0.4 < float(rows[0].split(" | ")[1]) / 100 < 0.8
    assert float(rows[0].split(" | ")[3]) < float(rows[0].split(" | ")[1])
    assert rows[1] == "| fpn | 25.00 | - | - | - |"


def test_runs_that_differ_only_in_diagnostics_are_one_row(tmp_path: Path) -> None:
    _run(tmp_path / "a", "jpu", 0, _found(0.4), diagnostics={"calibration": {"bins": 15}})
    _run(tmp_path / "b", "jpu", 1, diagnostics={})
    _, page = write([tmp_path], tmp_path / "page")
    assert "± " in page.read_text().partition("| mIoU |")[2].splitlines()[2]


@pytest.mark.parametrize("broken", [[], {"calibration": 3}, {"calibration": {"scores": {"ECE": {"15 bins": "low"}}}}])
def test_findings_that_are_none_are_refused_in_one_line(tmp_path: Path, broken: Any) -> None:
    _run(tmp_path / "a", "jpu", 0, broken)
    with pytest.raises(UserError, match=r"results.json is not in the format of this version \(content.diagnostics"):
        write([tmp_path], tmp_path / "page")
