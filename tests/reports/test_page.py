"""The pages of `report`, as they are read: by a person's browser, and as Markdown."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fastfcn_pl.contracts import UserError
from fastfcn_pl.report import main
from fastfcn_pl.reports.page import write
from tests.fakes.runs import CLASSES, write_run, write_sweep

CHROMIUM = shutil.which("chromium")
PUBLISHED = [
    {"run": "model/neck=jpu", "mIoU": 51.05, "fps": 37.56, "source": "arXiv 1903.11816"},
    {"run": "model/neck=none", "mIoU": 40.5},
]


class _Outside(HTMLParser):
    """Collects what a page would fetch, tags that are never closed, and its text."""

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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Necks and seeds, with pictures and published numbers."""
    folder = tmp_path_factory.mktemp("study")
    return write_sweep(folder / "sweep", ["jpu", "fpn", "dilated"], [0, 1, 2], overlays=2, published=PUBLISHED)


@pytest.fixture(scope="module")
def going(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single runs on other data, of which none is finished: going on, failed, and not begun to learn."""
    folder = tmp_path_factory.mktemp("going")
    one = {"data": "shapes", "study": "train", "multirun": False, "score": None}
    write_run(folder / "a", overrides=["optimizer.lr=0.1"], **one)
    write_run(folder / "b", overrides=["optimizer.lr=0.01"], steps=20, **one)
    failed = write_run(folder / "c", overrides=["optimizer.lr=9"], **one)
    (failed / "error.txt").write_text("optimizer.lr=9: <the loss> is not finite | lower it")
    new = write_run(folder / "d", overrides=["optimizer.lr=0.5"], **one)
    (new / "metrics" / "metrics.csv").unlink()
    return folder


def _rows(markdown: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    lines = markdown.partition(f"# {heading}\n")[2].strip().splitlines()
    table = [line for line in lines[: next((i for i, x in enumerate(lines) if x and x[0] != "|"), None)] if line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_the_markdown_of_a_study(study: Path, tmp_path: Path) -> None:
    html, page = write([study], tmp_path)
    assert (html.name, page.name) == ("neck_ablation.html", "neck_ablation.md")
    text = page.read_text()
    assert "**Question.** Does &lt;JPU> cost less?" in text
    assert "-m model/neck=jpu,fpn,dilated seed=0,1,2\n```" in text
    header, _, *rows = _rows(text, "camvid val, protocol native")
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["model/neck"], row["n"], row["mIoU"], row["mIoU, published"]) for row in cells] == [
        ("jpu", "3", "**71.00 ± 1.00**", "51.05"),
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


def test_what_a_person_wrote_is_kept_and_shown(study: Path, tmp_path: Path) -> None:
    html, page = write([study], tmp_path)
    first = page.read_text()
    assert first.endswith("## What was learned\n\nNot written yet.\n")
    page.write_text(first.replace("Not written yet.", "It <learns>.\n\nFast."))
    write([study], tmp_path)
    assert page.read_text() == first.replace("Not written yet.", "It <learns>.\n\nFast.")
    assert "<p>It &lt;learns&gt;.</p><p>Fast.</p>" in html.read_text()


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
    assert states["0.01"].startswith("running, epoch 5 of 10, last sign")
    assert states["0.5"].startswith("running, nothing logged yet")
    assert "is not ranked" in text
    assert "**" not in text.partition("## shapes")[2].partition("## IoU")[0]


def test_two_data_sets_have_two_tables(study: Path, going: Path, tmp_path: Path) -> None:
    html, page = write([study, going], tmp_path)
    assert page.name == "report.md"
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")][:2] == [
        "## camvid val, protocol native",
        "## shapes val, protocol native",
    ]
    assert "They were not scored alike" in text
    assert html.read_text().count('id="part-') == 2


def test_a_study_that_nobody_ran_yet_shows_what_was_published(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(json.dumps({"question": "Is it true?", "published": PUBLISHED}))
    html, page = write([tmp_path / "paper.yaml"], tmp_path / "out")
    text = page.read_text()
    assert page.name == "paper.md"
    assert "| model/neck=jpu | - | 51.05 | 37.56 |" in text
    assert "37.56" in html.read_text()


def test_costs_measured_in_different_ways_do_not_share_a_chart(tmp_path: Path) -> None:
    for i in range(3):
        run = write_run(tmp_path / "runs" / str(i), overrides=[f"optimizer.lr={i + 1}"], latency_ms=10.0 + i, gmacs=i)
    about = {"batch": 1, "size": [512, 512], "device": "GPU", "precision": "32-true", "threads": None}
    (run / "benchmark.json").write_text(json.dumps({"latency_ms": 1.0, "gmacs": 5.0, "peak_mib": 9.0, **about}))
    html, page = write([tmp_path / "runs"], tmp_path)
    assert "1 are left out: they were not measured as training began" in html.read_text()
    assert "; or by benchmark, batch 1 of 512x512 on GPU" in page.read_text()


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
    assert "The best 6; 14 more are left out." in text
    assert html.stat().st_size < 3e6


def test_a_wrong_command_line_is_one_line(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path)], ["output=x"], ["outptu=x", str(tmp_path), "output=y"]):
        with pytest.raises(SystemExit, match="usage: python"):
            main(arguments)
    with pytest.raises(SystemExit, match=r"error: .* is not the folder of a run"):
        main([str(tmp_path), f"output={tmp_path}/out"])
    assert not (tmp_path / "out").exists()


def test_an_overlay_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", overlays=1)
    (run / "overlays" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.png cannot be read as a picture"):
        write([run], tmp_path / "out")


@pytest.mark.exhaustive
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_offline(scheme: Any, width: int, study: Path, going: Path, tmp_path: Path) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    html, _ = write([study, going], tmp_path)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 800}
        ).new_page()
        wrong: list[str] = []
        page.on("request", lambda request: wrong.append(request.url) if not _ours(request.url, html) else None)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(html.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
        images = page.locator("img").evaluate_all("all => all.map(i => [i.complete, i.naturalWidth])")
        assert len(images) == 2 * (2 + 2 * 3)
        assert all(complete and wide > 0 for complete, wide in images)
        _hold_that_text_can_be_read(page)

        necks = page.locator("#part-1 tbody").first.locator("tr td:first-child")
        assert necks.all_inner_texts() == ["jpu", "fpn", "dilated", "none"]
        page.locator("#part-1 th button", has_text=re.compile("^ms")).first.click()
        assert necks.all_inner_texts() == ["dilated", "fpn", "jpu", "none"]
        page.locator("#part-1 th button", has_text=re.compile("^ms")).first.click()
        assert necks.all_inner_texts() == ["jpu", "fpn", "dilated", "none"]

        assert page.locator("#part-1 img.on").first.is_hidden()
        page.get_by_label("errors in place of predictions").check()
        assert page.locator("#part-1 img.on").first.is_visible()
        assert page.locator("#part-1 img.off").first.is_hidden()
        cell = page.locator("td.heat").first
        before = cell.evaluate("c => getComputedStyle(c).backgroundColor")
        page.get_by_label("colour the difference").first.check()
        assert cell.evaluate("c => getComputedStyle(c).backgroundColor") != before
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert wrong == []


def _ours(url: str, html: Path) -> bool:
    return url.startswith("data:") or url == html.as_uri()


def _hold_that_text_can_be_read(page: Any) -> None:
    """Hold that text and its paper differ: by 4.5 times in luminance, as WCAG asks."""
    script = """() => {
      const light = (css) => {
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.fillStyle = css;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return ["body", ".note", ".question", "tr.failed td", "tr.running td", "th", "figure svg text"].map((place) => {
        const style = getComputedStyle(document.querySelector(place));
        const ink = light(place.endsWith("text") ? style.fill : style.color);
        return [place, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
      });
    }"""
    contrast: dict[str, float] = dict(page.evaluate(script))
    assert min(contrast.values()) > 4.5, contrast
    assert len(contrast) == 7


@pytest.mark.slow
def test_a_run_that_was_really_trained_reads_like_the_fakes(command: Callable[..., Any], tmp_path: Path) -> None:
    tiny = ["data.train_images=8", "data.val_images=3", "data.batch_size=4", "data.num_workers=0", "data.size=32"]
    trained = command(
        "train", "-cn", "quickstart", *tiny, "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "logger=none",
        "trainer.accelerator=cpu", "seed=0,1", "-m",
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
