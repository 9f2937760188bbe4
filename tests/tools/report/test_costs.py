"""Reports on runs of `benchmark`, which have costs but no score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.report.page import write
from tests.fakes.runs import write_benchmark, write_run

PUBLISHED = [
    {"run": "model=dilated", "fps": 10.0, "source": "the paper"},
    {"run": "model=jpu", "fps": 25.0, "over": "model=dilated", "name": "EncNet"},
    {"run": "model=jpu", "over": "model=dilated", "name": "not published"},
]


@pytest.fixture
def speed(tmp_path: Path) -> Path:
    study = {"question": "How much faster?", "published": PUBLISHED}
    write_benchmark(tmp_path / "speed" / "0", model="dilated", latency_ms=900.0, gmacs=240.0, **study)
    write_benchmark(tmp_path / "speed" / "1", model="jpu", latency_ms=300.0, gmacs=80.0, **study)
    return tmp_path / "speed"


@pytest.mark.slow
def test_a_page_has_costs_their_ratios_and_the_published_ones(speed: Path, tmp_path: Path) -> None:
    _, page = write([speed], tmp_path)
    text = page.read_text()
    assert page.name == "paper_speed.md"
    assert "**Question.** How much faster?" in text
    assert "python -m fastfcn_pl.benchmark -cd experiments -cn paper_speed" in text
    assert "## batch 1 of 512x512, 32-true, 2 x Fake Processor, 2 threads, torch 2.14.1" in text
    assert "| network | M params | GMACs | ms | p10 | p90 | MiB | backbone, ms | labels, ms |" in text
    assert "| jpu | 40.00 | 80.00 | 300 | 299 | 301 | 300 | 150 | 150 |" in text
    assert "| EncNet | 3.00 | 3.00 | 2.50 |" in text
    assert "| not published | 3.00 | 3.00 | - |" in text
    assert "Published numbers: the paper." in text
    assert "- processor: 2 x Fake Processor" in text
    assert "wall time" not in text
    chart = (tmp_path / "paper_speed" / "cost_0.svg").read_text()
    assert "![latency by part](paper_speed/cost_0.svg)" in text
    assert chart.startswith("<svg")


@pytest.mark.slow
def test_html_has_the_same(speed: Path, tmp_path: Path) -> None:
    page, _ = write([speed], tmp_path)
    text = page.read_text()
    assert "<h1>paper_speed</h1>" in text
    assert text.count("<svg") == 1
    assert ">2.50</td>" in text


@pytest.mark.slow
def test_costs_stand_behind_scores(speed: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "trained", score=0.6)
    _, page = write([tmp_path / "trained", speed], tmp_path)
    text = page.read_text()
    assert text.index("camvid val, protocol native") < text.index("batch 1 of 512x512")
    assert "3 runs" in text


MATCH = {"what": "gmacs", "of": "model/neck=jpu", "within": 0.03}


@pytest.mark.slow
def test_widths_of_equal_cost_stand_beside_it(tmp_path: Path) -> None:
    benchmark = write_benchmark(tmp_path / "speed" / "0", model="fpn", latency_ms=9.0, gmacs=2.0, match=MATCH)
    write_benchmark(tmp_path / "speed" / "1", model="jpu", latency_ms=9.0, gmacs=2.0, match={**MATCH, "what": None})
    trained = write_run(tmp_path / "trained", score=0.6, match=MATCH)
    for file in (benchmark / "benchmark.json", trained / "results.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "equal_cost": "width 216 (1.004x)"}))
    _, page = write([tmp_path / "trained", tmp_path / "speed"], tmp_path)
    rows = [line for line in page.read_text().splitlines() if "width 216 (1.004x)" in line]
    assert len(rows) == 2
    assert rows[1].startswith("| fpn (equal GMACs) | 40.00 | 2.00 |")
    assert "| jpu (equal width) | 40.00 | 2.00 | 9 | 8 | 10 | 300 | 4 | 4 | - |" in page.read_text()
    note = (
        "the neck's width is chosen for the GMACs of model/neck=jpu, within 3 %; the ratio of the two is in brackets."
    )
    assert page.read_text().count(note) == 2


def test_a_benchmark_that_is_not_done_is_no_run(speed: Path, tmp_path: Path) -> None:
    for file in speed.rglob("benchmark.json"):
        file.unlink()
    with pytest.raises(UserError, match=r"contains no run: .*finished `fastfcn_pl.benchmark`"):
        write([speed], tmp_path)
