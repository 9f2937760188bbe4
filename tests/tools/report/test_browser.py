"""The HTML page of `report` in Chromium without a network: on a desktop and on a phone, light and dark."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastfcn_pl.tools.report.page import write

CHROMIUM = shutil.which("chromium")
_PATIENCE = 120_000  # ms


@pytest.mark.exhaustive
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_offline(scheme: Any, width: int, study: Path, going: Path, tmp_path: Path) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    html, _ = write([study, going], tmp_path)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=_PATIENCE)
        page = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 800}
        ).new_page()
        page.set_default_timeout(_PATIENCE)
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
        links = page.locator("a").evaluate_all("all => all.map(a => [a.hash, !!document.querySelector(a.hash)])")
        assert links == [["#part-1", True], ["#part-2", True]]

        necks = page.locator("#part-1 tbody").first.locator("tr td:first-child")
        assert necks.all_inner_texts() == ["jpu", "fpn", "dilated", "none"]
        page.locator("#part-1 th button", has_text=re.compile("^ms")).first.click()
        assert necks.all_inner_texts() == ["dilated", "fpn", "jpu", "none"]
        page.locator("#part-1 th button", has_text=re.compile("^ms")).first.click()
        assert necks.all_inner_texts() == ["jpu", "fpn", "dilated", "none"]

        widths = page.locator("#part-1 .pictures img:visible").evaluate_all("all => all.map(i => i.clientWidth)")
        assert len(set(widths)) == 1, "image, truth and predictions are of one size"
        assert page.locator("#part-1 img.on").first.is_hidden()
        page.get_by_label("errors instead of predictions").check()
        assert page.locator("#part-1 img.on").first.is_visible()
        assert page.locator("#part-1 img.off").first.is_hidden()
        cell = page.locator("td.heat").first
        before = cell.evaluate("c => getComputedStyle(c).backgroundColor")
        page.get_by_label("colour by the difference").first.check()
        assert cell.evaluate("c => getComputedStyle(c).backgroundColor") != before
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert wrong == []


def _ours(url: str, html: Path) -> bool:
    return url.startswith("data:") or url == html.as_uri()


def _hold_that_text_can_be_read(page: Any) -> None:
    """Check that the contrast of text is at least 4.5, as WCAG demands."""
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
