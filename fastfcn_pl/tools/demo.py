"""A local web page that labels the images dropped on it."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.image_files import read_image
from fastfcn_pl.tools.predict.prediction import Prediction
from fastfcn_pl.tools.predict.predictor import Predictor

_OPACITY = 0.6
_DELETE_CACHE = (600, 3600)
"""Seconds between two searches for old uploads, and the age from which an upload is removed."""
_BUTTONS = ["download", "fullscreen"]  # without share, which uploads the image


def demo(cfg: DictConfig) -> None:
    """Serve the page on this machine until Ctrl-C. Nothing is sent elsewhere, and uploads are removed at the end."""
    if cfg.max_upload_mib < 1:
        raise UserError(f"max_upload_mib={cfg.max_upload_mib}: give 1 or more")
    with _uploads():
        _serve(cfg)


@contextmanager
def _uploads() -> Iterator[None]:
    """Make Gradio store uploads and overlays in a folder that is removed at the end, even after SIGTERM or SIGHUP."""

    def end(number: int, *_: Any) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="fastfcn_pl_demo_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when Gradio is imported
        yield


def _serve(cfg: DictConfig) -> None:
    predictor = Predictor(cfg.checkpoint, cfg.device, trust=cfg.trust, accelerate=cfg.accelerate)
    if predictor.spec.bands is not None:
        raise UserError(
            f"demo is for RGB images, and checkpoint={cfg.checkpoint} takes {predictor.spec.images}: predict"
        )
    blocks = page(predictor)
    try:
        blocks.launch(
            server_name=cfg.host,
            server_port=cfg.port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            ssr_mode=False,  # otherwise Gradio looks for Node.js
            max_file_size=cfg.max_upload_mib * 2**20,
        )
    except OSError as error:
        raise UserError(f"port={cfg.port} of host={cfg.host} cannot be used ({error}): choose another port") from error
    try:
        with suppress(KeyboardInterrupt):
            print(f"labelling images at {blocks.local_url} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    finally:
        blocks.close(verbose=False)


def page(predictor: Predictor) -> Any:
    """Return the page as Gradio's `Blocks`: an upload, its overlay, a slider for the opacity, and a legend."""
    gr = _gradio()
    spec = predictor.spec
    with gr.Blocks(
        title=f"fastfcn_pl: {spec.name}", analytics_enabled=False, fill_width=True, delete_cache=_DELETE_CACHE
    ) as blocks:
        gr.Markdown(f"## {spec.name}, {spec.num_classes} classes")
        prediction = gr.State()
        with gr.Row():
            image = gr.Image(label="image", type="filepath", elem_id="image")
            image.preprocess = _path_of
            overlay = gr.Image(label="overlay", format="png", interactive=False, buttons=_BUTTONS, elem_id="overlay")
        opacity = gr.Slider(0, 1, _OPACITY, step=0.05, label="opacity of the colours", elem_id="opacity")
        legend = gr.HTML(elem_id="legend")

        def label(path: str | None, opacity: float) -> tuple[Prediction | None, np.ndarray | None, str]:
            if path is None:
                return None, None, ""
            prediction = _predict(predictor, path)
            return prediction, prediction.blended(opacity), legend_of(prediction)

        def blend(prediction: Prediction | None, opacity: float) -> np.ndarray | None:
            return None if prediction is None else prediction.blended(opacity)

        image.change(label, [image, opacity], [prediction, overlay, legend])
        opacity.change(blend, [prediction, opacity], overlay, show_progress="hidden")
    return blocks


def _path_of(upload: Any) -> str | None:
    """Return the path of an upload. Gradio's own preprocessing would open the file, in any format."""
    return None if upload is None else upload.path


def legend_of(prediction: Prediction) -> str:
    """Return the predicted classes as HTML, each with its colour and its share of the pixels, largest first."""
    spec, swatch = prediction.spec, "display:inline-block;width:1em;height:1em;border:1px solid grey;margin-right:.4em"
    entries = [
        f'<span style="display:inline-block;margin-right:1.5em"><span style="{swatch};background:rgb{spec.palette[c]}">'
        f'</span><span class="name">{escape(spec.classes[c])}</span> {100 * share:.1f} %</span>'
        for c, share in prediction.shares().items()
    ]
    return "".join(entries)


def _predict(predictor: Predictor, path: str) -> Prediction:
    """Label an uploaded file; if it cannot be read, the page shows one line."""
    try:
        image = np.asarray(read_image(Path(path), upright=True))
        return Prediction(image, predictor(image), predictor.spec)
    except UserError as error:
        raise _gradio().Error(str(error), print_exception=False) from error


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # otherwise it also asks for its newest version
    try:
        import gradio
    except ImportError as error:
        raise UserError("the demo needs Gradio: pip install 'fastfcn-pl[demo]'") from error
    return gradio
