"""The web page, used by a browser."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from fastfcn_pl import Predictor
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.evaluation.visualize import overlay
from fastfcn_pl.tools.demo import legend_of
from fastfcn_pl.tools.predict.prediction import Prediction
from fastfcn_pl.tools.train import train
from tests.conftest import TINY, composed
from tests.fakes.folder import photograph
from tests.support.grids import sample
from tests.support.processes import Process, free_port, start, wait

CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def test_the_legend_names_what_is_in_sight_and_nothing_else() -> None:
    spec = DatasetSpec("three", ("sky", "<b>", "car"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    labels = np.array([[1, 1, 1, 0]], np.uint8)
    html = legend_of(Prediction(np.zeros((1, 4, 3), np.uint8), labels, spec))
    assert re.findall(r"rgb\((.*?)\)", html) == ["4, 5, 6", "1, 2, 3"]
    assert re.findall(r'"name">(.*?)</span> (.*?) %', html) == [("&lt;b&gt;", "75.0"), ("sky", "25.0")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    keys = ["data.size=48", "data.train_images=64", "data.val_images=2", "data.batch_size=8", "data.num_workers=0"]
    keys += [f"run_dir={folder}", "trainer.max_epochs=4", "callbacks.cost.repeats=0", "optimizer=adamw"]
    train(composed(*TINY, *keys))
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture
def url(checkpoint: Path, tmp_path: Path) -> Iterator[str]:
    server, url = _start(checkpoint, tmp_path)
    yield url
    server.send_signal(signal.SIGTERM)
    server.wait(30)


def _start(checkpoint: Path, folder: Path, *more: str, **env: str) -> tuple[Process, str]:
    """Start the page, and return the address that it prints after the steps of its start."""
    server = start(folder, "fastfcn_pl.demo", f"checkpoint={checkpoint}", f"port={free_port()}", *more, **env)
    assert wait(server, lambda: "labelling images at http" in server.said()[0]), server.communicate()
    line = next(line for line in server.said()[0].splitlines() if not line.startswith("demo: "))
    return server, re.findall(r"http\S+", line)[0]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_an_image_that_is_dropped_is_labelled(url: str, checkpoint: Path, tmp_path: Path) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    pixels = photograph(3, (120, 160))[0]
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "photo.png").read_bytes()[:900])
    predictor = Predictor(checkpoint)
    labels = predictor(pixels)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(url)
        page.set_input_files("#image input[type=file]", tmp_path / "photo.png")
        shown = _shown(page)
        assert np.array_equal(shown, overlay(pixels, labels, predictor.spec, 0.6))
        names = page.locator("#legend .name").all_inner_texts()
        assert set(names) == {predictor.spec.classes[c] for c in np.unique(labels)}
        page.screenshot(path=tmp_path / "page.png")
        before = _source(page)
        box = page.locator("#opacity input[type=number]")
        box.fill("0")
        box.press("Enter")
        page.wait_for_function("old => document.querySelector('#overlay img').src !== old", arg=before)
        assert np.array_equal(_shown(page), pixels)
        page.reload()
        page.set_input_files("#image input[type=file]", tmp_path / "torn.png")
        page.get_by_text("cannot be read as an image").wait_for()
        browser.close()


def _source(page: Any) -> str:
    return str(page.locator("#overlay img").get_attribute("src"))


def _shown(page: Any) -> np.ndarray:
    """Return the picture of the overlay that the browser has, decoded."""
    page.wait_for_selector("#overlay img")
    return np.asarray(Image.open(BytesIO(page.request.get(_source(page)).body())).convert("RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("number", sample([signal.SIGTERM, signal.SIGINT], signal.SIGTERM))
def test_uploads_have_a_limit_and_are_gone_at_the_end(checkpoint: Path, tmp_path: Path, number: signal.Signals) -> None:
    client = pytest.importorskip("gradio_client")
    (tmp_path / "tmp").mkdir()
    Image.fromarray(photograph(3, (40, 60))[0]).save(tmp_path / "photo.png")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "drawing.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "huge.png").write_bytes((tmp_path / "photo.png").read_bytes() + bytes(2**20))
    server, url = _start(checkpoint, tmp_path, "max_upload_mib=1", TMPDIR=str(tmp_path / "tmp"))
    try:
        page = client.Client(url, verbose=False)
        assert page.predict(client.handle_file(tmp_path / "photo.png"), 0.5, api_name="/label")
        for name in ("notes.png", "drawing.png"):
            with pytest.raises(client.exceptions.AppError, match="cannot be read as an image"):
                page.predict(client.handle_file(tmp_path / name), 0.5, api_name="/label")
        with pytest.raises(HTTPError, match="413"):
            _upload(url, tmp_path / "huge.png")
        assert "huge" not in str(list((tmp_path / "tmp").rglob("*")))
        (folder,) = (tmp_path / "tmp").glob("fastfcn_pl_demo_*")
        assert list(folder.rglob("photo.png"))
    finally:
        server.send_signal(number)
        _, errors = server.communicate(timeout=60)
    assert "Traceback" not in errors
    assert not list((tmp_path / "tmp").glob("fastfcn_pl_demo_*"))


def _upload(url: str, file: Path) -> None:
    """Send a file to the page as a browser does, which asks for no limit."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
    body = head.encode() + file.read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    urlopen(Request(f"{url.rstrip('/')}/gradio_api/upload", body, headers)).read()


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(checkpoint: Path, command: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("demo", f"checkpoint={checkpoint}", f"port={port}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"port={port} of host=127.0.0.1 cannot be used" in done.stderr
