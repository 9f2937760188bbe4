"""Pages of `report`: HTML and Markdown."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.visualize import panels
from fastfcn_pl.tools.report import pictures
from fastfcn_pl.tools.report.command import report
from fastfcn_pl.tools.report.page import write
from fastfcn_pl.tools.report.runs import find_runs
from tests.fakes.runs import CLASSES, write_run, write_sweep
from tests.tools.report.conftest import PUBLISHED


class _Outside(HTMLParser):
    """Parser that collects the external resources of a page and its unclosed tags."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and value and not value.startswith(("data:", "#")):
                self.fetched.append(value)
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _rows(markdown: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    lines = markdown.partition(f"# {heading}\n")[2].strip().splitlines()
    table = [line for line in lines[: next((i for i, x in enumerate(lines) if x and x[0] != "|"), None)] if line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


@pytest.mark.slow
def test_the_markdown_of_a_study(study: Path, tmp_path: Path) -> None:
    html, page = write([study], tmp_path)
    assert (html.name, page.name) == ("neck_ablation.html", "neck_ablation.md")
    text = page.read_text()
    assert "**Question.** Does &lt;JPU> cost less?" in text
    assert "-m model/neck=jpu,fpn,dilated seed=0,1,2\n```" in text
    header, _, *rows = _rows(text, "camvid val, protocol native")
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["model/neck"], row["n"], row["mIoU"], row["mIoU, published"]) for row in cells] == [
        ("jpu", "3", "71.00 ± 1.00", "51.05"),
        ("fpn", "3", "66.00 ± 1.00", "-"),
        ("dilated", "3", "61.00 ± 1.00", "-"),
        ("none", "-", "-", "40.50"),
    ]
    assert [row["ms"] for row in cells] == ["50.0", "80.0", "110.0", "-"]
    assert "seed" not in header
    assert len(_rows(text, "Each run")) == 2 + 9
    assert r"| a\|b |" in text
    for name in re.findall(r"\((neck_ablation/[^)]+)\)", text):
        assert (tmp_path / name).stat().st_size > 1000
    assert "Published numbers: arXiv 1903.11816." in text


@pytest.mark.slow
def test_what_a_person_wrote_is_kept_and_shown(study: Path, tmp_path: Path) -> None:
    html, page = write([study], tmp_path)
    first = page.read_text()
    assert first.endswith("## What was learned\n\nNot written yet.\n")
    page.write_text(first.replace("Not written yet.", "It <learns>.\n\nFast."))
    write([study], tmp_path)
    assert page.read_text() == first.replace("Not written yet.", "It <learns>.\n\nFast.")
    assert "<p>It &lt;learns&gt;.</p><p>Fast.</p>" in html.read_text()


@pytest.mark.slow
def test_the_html_is_whole_and_fetches_nothing(study: Path, going: Path, tmp_path: Path) -> None:
    for folder in (study, going):
        html, _ = write([folder], tmp_path)
        text = html.read_text()
        page = _Outside()
        page.feed(text)
        assert (page.fetched, page.open) == ([], [])
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
        assert "car, &lt;parked&gt;" in text
        assert "<parked>" not in text


def test_runs_that_go_on_are_shown_as_such(going: Path, tmp_path: Path) -> None:
    _, page = write([going], tmp_path)
    text = page.read_text()
    assert "4 runs: 3 running, 1 failed." in text
    header, _, *rows = _rows(text, "shapes val, protocol native")
    states = {row[0]: row[header.index("state")] for row in rows}
    assert states["9"] == r"failed: optimizer.lr=9: &lt;the loss> is not finite \| lower it"
    assert states["0.01"].startswith("running, epoch 5 of 10, last update")
    assert states["0.5"].startswith("running, nothing logged yet")
    assert "is not ranked" in text
    assert "**" not in text.partition("## shapes")[2].partition("## IoU")[0]


@pytest.mark.slow
def test_two_data_sets_have_two_tables(study: Path, going: Path, tmp_path: Path) -> None:
    html, page = write([study, going], tmp_path)
    assert page.name == "report.md"
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")][:2] == [
        "## camvid val, protocol native",
        "## shapes val, protocol native",
    ]
    assert "have tables of their own" in text
    assert html.read_text().count('id="part-') == 2


def test_a_folder_of_unlike_runs_is_a_readable_page(tmp_path: Path) -> None:
    """Other classes, other data, failed, running: each is compared with its like alone, and none is lost."""
    runs = write_sweep(tmp_path / "runs", ["jpu", "fpn"], [0, 1], overlays=1)
    alone = {"study": "train", "multirun": False}
    write_run(runs / "fewer images", images=7, score=0.9, **alone)
    other = write_run(runs / "other classes", score=0.8, overlays=1, **alone)
    results = json.loads((other / "results.json").read_text())
    by_class = {name: dict.fromkeys(("sky", "road"), 0.5) for name in ("IoU", "share")}
    (other / "results.json").write_text(json.dumps({**results, **by_class}))
    write_run(runs / "going", data="shapes", score=None, steps=20, overlays=1, **alone)
    failed = write_run(runs / "failed", data="shapes", overrides=["optimizer.lr=9"], score=None, **alone)
    (failed / "error.txt").write_text("the loss is not finite")
    html, page = write([runs], tmp_path / "pages")
    text = page.read_text()
    assert "8 runs: 6 finished, 1 running, 1 failed." in text
    titles = re.findall(r"^## (.+, protocol native.*)$", text, re.MULTILINE)
    assert len(titles) == 4
    scores = {title: [row[1] for row in _rows(text, title)[2:]] for title in titles}
    assert sorted(map(len, scores.values())) == [1, 1, 2, 2], "one row for seeds, one for each other run"
    assert "Not written yet." in text
    checked = _Outside()
    checked.feed(html.read_text())
    assert (checked.fetched, checked.open) == ([], [])


def test_a_study_that_nobody_ran_yet_shows_what_was_published(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(json.dumps({"question": "Is it true?", "published": PUBLISHED}))
    html, page = write([tmp_path / "paper.yaml"], tmp_path / "out")
    text = page.read_text()
    assert page.name == "paper.md"
    assert "| model/neck=jpu | - | 51.05 | 37.56 |" in text
    assert "37.56" in html.read_text()


@pytest.mark.slow
def test_costs_measured_in_different_ways_do_not_share_a_chart(tmp_path: Path) -> None:
    for i in range(3):
        run = write_run(tmp_path / "runs" / str(i), overrides=[f"optimizer.lr={i + 1}"], latency_ms=10.0 + i, gmacs=i)
    about = {"batch": 1, "size": [512, 512], "device": "GPU", "precision": "32-true", "threads": None}
    (run / "benchmark.json").write_text(json.dumps({"latency_ms": 1.0, "gmacs": 5.0, "peak_mib": 9.0, **about}))
    html, page = write([tmp_path / "runs"], tmp_path)
    assert "1 are left out, since they were not measured at the start of training" in html.read_text()
    assert "; or by benchmark, batch 1 of 512x512 on GPU" in page.read_text()


@pytest.mark.slow
def test_two_hundred_runs_are_a_page_in_seconds(tmp_path: Path) -> None:
    for i in range(200):
        overrides = [f"optimizer.lr={0.001 * (i + 1):.3f}", f"model.neck.width={32 * (i % 4 + 1)}"]
        write_run(
            tmp_path / "runs" / str(i),
            overrides=overrides,
            score=0.3 + 0.4 * ((37 * i) % 200) / 200,
            latency_ms=50.0 + i,
            gmacs=3.0 + i % 7,
            steps=400,
            overlays=2 if i % 10 == 0 else 0,
        )
    begun = time.process_time()
    html, page = write([tmp_path / "runs"], tmp_path)
    assert time.process_time() - begun < 15  # three, on a machine that does nothing else
    text = page.read_text()
    assert len(_rows(text, "camvid val, protocol native")) == 2 + 200
    assert "and 188 more in grey" in text
    assert "The best 12; 8 more are left out." in text
    assert html.stat().st_size < 3e6


def test_a_wrong_command_line_is_one_line(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path)], ["output=x"], ["outptu=x", str(tmp_path), "output=y"]):
        with pytest.raises(SystemExit, match="usage: python"):
            report(arguments)
    with pytest.raises(SystemExit, match=r"error: .* contains no run"):
        report([str(tmp_path), f"output={tmp_path}/out"])
    assert not (tmp_path / "out").exists()


def test_of_many_images_some_from_all_over_the_split_are_shown(tmp_path: Path) -> None:
    runs = find_runs([write_sweep(tmp_path / "sweep", ["jpu", "fpn"], [0], overlays=8)])
    made = pictures.sample_rows(runs)
    shown = [panels(np.asarray(Image.open(runs[0].folder / "overlays" / f"{i}.png")), 24 * 6) for i in (0, 2, 5, 7)]
    assert len(made) == len(shown)
    assert all(np.array_equal(row.image, cut["image"]) for row, cut in zip(made, shown, strict=True))


@pytest.mark.parametrize(("runs", "across", "lines"), [(3, 5, 1), (4, 3, 2), (12, 5, 3)])
def test_a_sheet_breaks_its_lines_and_names_the_classes_in_sight(runs: int, across: int, lines: int) -> None:
    white = np.full((90, 120, 3), 255, np.uint8)
    row = pictures.Row(white, white, [white] * runs, [white] * runs, {"sky": (1, 2, 3), "road": (4, 5, 6)})
    sheet = pictures.sheet([row, row], [f"run {i}" for i in range(runs)])
    assert sheet.shape[1] == across * (120 + 6)
    titles = 2 * lines if lines > 1 else 1
    legend = sheet.shape[0] - 2 * lines * (90 + 6) - titles * 18
    assert 18 <= legend <= 40
    painted = {tuple(color) for color in sheet[-legend:].reshape(-1, 3).tolist()}
    assert {(1, 2, 3), (4, 5, 6)} <= painted


def test_one_validation_is_no_curve_and_a_tie_has_no_winner(tmp_path: Path) -> None:
    for i, neck in enumerate(("jpu", "fpn")):
        run = write_run(tmp_path / "runs" / neck, overrides=[f"model/neck={neck}"], gmacs=float(i), question="`a` < b?")
        metrics = run / "metrics" / "metrics.csv"
        lines = metrics.read_text().splitlines(keepends=True)
        metrics.write_text("".join(lines[:-2] + lines[-1:]))
    html, page = write([tmp_path / "runs"], tmp_path)
    assert "![mIoU on val, %]" not in page.read_text()
    assert "![training loss]" in page.read_text()
    assert "**" not in page.read_text().partition("IoU by class")[2]
    assert '<p class="question"><code>a</code> &lt; b?</p>' in html.read_text()


def test_an_overlay_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", overlays=1)
    (run / "overlays" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.png cannot be read as an overlay"):
        write([run], tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_was_really_trained_reads_like_the_fakes(command: Callable[..., Any], tmp_path: Path) -> None:
    tiny = ["data.train_images=8", "data.val_images=3", "data.batch_size=4", "data.num_workers=0", "data.size=32"]
    trained = command(
        "train", "-cn", "quickstart", *tiny, "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "logger=none",
        "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu", "seed=0,1", "-m",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    (sweep,) = (tmp_path / "runs" / "quickstart").iterdir()
    done = command("report", str(sweep), "output=pages")
    assert done.returncode == 0, done.stderr
    fake = write_run(tmp_path / "fake", overlays=1)
    told, real = (json.loads((run / "results.json").read_text()) for run in (fake, sweep / "0"))
    assert set(told) <= set(real)
    assert set(told["cost"]) == set(real["cost"])
    text = (tmp_path / "pages" / "quickstart.md").read_text()
    header, _, row = _rows(text, "shapes val, protocol native")
    cells = dict(zip(header, row, strict=True))
    assert cells["n"] == "2"
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", cells["mIoU"])
    assert float(cells["ms"]) > 0
    assert f"{real['cost']['peak_mib']:.0f}" == cells["MiB"]
    assert "python -m fastfcn_pl.train -cn quickstart -m data.train_images=8" in text
    assert (tmp_path / "pages" / "quickstart" / "samples_0.jpg").stat().st_size > 1000
    assert len(re.findall(r"<svg", (tmp_path / "pages" / "quickstart.html").read_text())) >= 2
    assert len(CLASSES) == 3
