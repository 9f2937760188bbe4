"""Command `predict`: write the labels of images and videos to files."""

from __future__ import annotations

import re
import traceback
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from fastfcn_pl.core import atomic_io
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.io.band_files import band_pixels
from fastfcn_pl.data.io.find_images import find_images
from fastfcn_pl.data.io.image_files import read_image
from fastfcn_pl.data.io.pairs import stack_folders
from fastfcn_pl.evaluation.visualize import displayed
from fastfcn_pl.tools.predict import output_folder, prediction, video
from fastfcn_pl.tools.predict.output_folder import Targets
from fastfcn_pl.tools.predict.prediction import Prediction, save_probabilities
from fastfcn_pl.tools.predict.predictor import Predictor

_VIDEO_SUFFIXES = {"labels": ".mkv", "colors": ".mp4", "overlays": ".mp4"}
Stacked = dict[str, list[Path]]
"""Further files of an image, by its path."""
_MAX_NAMED = 20
"""Failed images that the final message names."""


def predict(cfg: DictConfig) -> None:
    """Write the kinds in `cfg.save` for every image and video of `cfg.input`; skip those that are done.

    Raises UserError at the end with the names of inputs that failed.
    """
    kinds = [cfg.save] if isinstance(cfg.save, str) else list(cfg.save or ())
    if unknown := [str(kind) for kind in kinds if kind not in prediction.SUFFIXES]:
        raise UserError(f"save={unknown[0]}: no such picture; {suggest(unknown[0], prediction.SUFFIXES)}")
    if not kinds:
        raise UserError(f"save=[] writes nothing: choose from {', '.join(prediction.SUFFIXES)}")
    if cfg.frames is not None and cfg.frames < 1:
        raise UserError(f"frames={cfg.frames}: give 1 or more, or null for all")
    output = Path(cfg.output)
    base, targets = _targets(cfg.input, output, kinds)
    made_by: dict[str, Any] = {
        "checkpoint": Path(cfg.checkpoint).name,
        "sha256": output_folder.fingerprint(cfg.checkpoint),
    }
    made_by |= {"precision": cfg.precision}
    others: Stacked = {}
    if cfg.modalities:
        made_by |= {"modalities": list(cfg.modalities)}
        images = [(Path(name), Path(name)) for name in targets]
        others = {str(path): files for path, _, *files in stack_folders(images, base, list(map(Path, cfg.modalities)))}
    if any(map(video.is_video, targets)):
        made_by |= {"frames": cfg.frames}
    with output_folder.opened(output, made_by, base, targets, cfg.overwrite) as pending:
        if len(pending) < len(targets):
            print(f"{len(targets) - len(pending)} images are done already (overwrite=true repeats them)")
        if pending:
            _label(
                Predictor(cfg.checkpoint, cfg.device, cfg.precision, cfg.trust, cfg.accelerate), pending, others, cfg
            )


def _label(predictor: Predictor, pending: Targets, others: Stacked, cfg: DictConfig) -> None:
    """Write the files of each input; collect failures for the end, but stop at a full disk."""
    failed: dict[str, str] = {}
    unexpected: Exception | None = None
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for done, name in enumerate(progress.track(pending, description="images")):
            try:
                if video.is_video(name):
                    _label_video(predictor, name, pending[name], cfg.frames, progress)
                else:
                    _label_image(predictor, [Path(name), *others.get(name, ())], pending[name])
            except UserError as error:
                failed[name] = str(error)
                if getattr(error.__cause__, "errno", None) in atomic_io.DISK_FULL_ERRORS:
                    raise UserError(
                        f"{error} ({done + 1 - len(failed)} of {len(pending)} images are done; run the same command "
                        "again for the rest)"
                    ) from error
            except Exception as error:  # a user's network may raise anything; continue with the next image
                failed[name] = _failure(name, error)
                traceback.clear_frames(error.__traceback__)  # frames keep the image alive
                unexpected = unexpected or error
    print(f"{len(pending) - len(failed)} images labelled in {cfg.output}")
    if failed:
        lines = list(failed.values())
        more = f"; and {len(lines) - _MAX_NAMED} more" if len(lines) > _MAX_NAMED else ""
        raise UserError(
            f"{len(failed)} of {len(pending)} images were not labelled: {'; '.join(lines[:_MAX_NAMED])}{more}"
        ) from unexpected


def _failure(name: str, error: Exception) -> str:
    """Return the message for an image that failed with an unexpected error."""
    message = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or re.search(r"alloc|out of memory", message, re.IGNORECASE):
        return f"{name} does not fit into memory ({message or 'MemoryError'}): shrink it, or leave it out"
    return f"{name} could not be labelled ({type(error).__name__}: {message})"


def _targets(source: str, output: Path, kinds: list[str]) -> tuple[Path, Targets]:
    """Return the folder of the input, and the files to write by input, named by its path relative to that folder."""
    if video.is_camera(source):
        base, files = Path(), [Path(source)]
    else:
        base, files = find_images(source, video.SUFFIXES, output_folder.is_output(output, prediction.SUFFIXES))
    targets: Targets = {}
    owners: dict[Path, Path] = {}
    for path in files:
        name = path.relative_to(base)
        is_video = video.is_video(str(path))
        if is_video and (unsupported := [kind for kind in kinds if kind not in _VIDEO_SUFFIXES]):
            raise UserError(
                f"save={unsupported[0]}: not available for the video {path}; choose from {', '.join(_VIDEO_SUFFIXES)}"
            )
        suffixes = _VIDEO_SUFFIXES if is_video else prediction.SUFFIXES
        targets[str(path)] = {kind: output / kind / name.with_suffix(suffixes[kind]) for kind in kinds}
        for target in targets[str(path)].values():
            if target in owners:
                raise UserError(f"{owners[target]} and {path} would both be written as {target}: rename one")
            owners[target] = path
    return base, targets


def _label_image(predictor: Predictor, paths: list[Path], targets: dict[str, Path]) -> None:
    bands = predictor.spec.bands
    if bands is None and len(paths) > 1:
        raise UserError(
            "modalities is for networks that take several files, and this one takes RGB images: leave it out"
        )
    image = np.asarray(read_image(paths[0], upright=True)) if bands is None else band_pixels(paths, bands)
    remaining = dict(targets)
    if probabilities := remaining.pop("probabilities", None):
        labels = save_probabilities(predictor.scores(image), probabilities)
    else:
        labels = predictor(image)
    for kind, target in remaining.items():
        Prediction(displayed(image, predictor.spec), labels, predictor.spec).save(kind, target)


def _label_video(
    predictor: Predictor, source: str, targets: dict[str, Path], frames: int | None, progress: Progress
) -> None:
    """Write a video of each kind from the first `frames` frames; Ctrl-C ends a camera and keeps its video."""
    if predictor.spec.bands is not None:
        raise UserError(f"{source} is an RGB video, and the network takes {predictor.spec.images}: give such images")
    with ExitStack() as stack:
        reader = stack.enter_context(video.reading(source))
        writers = {
            kind: stack.enter_context(
                video.writing(stack.enter_context(atomic_io.atomic_write(path)), kind == "labels", reader)
            )
            for kind, path in targets.items()
        }
        with suppress(KeyboardInterrupt) if video.is_camera(source) else ExitStack():
            pictures = islice(reader.frames(), frames)
            total = frames or reader.length
            for image, time in progress.track(pictures, total=total, description=escape(source)):
                result = Prediction(image, predictor(image), predictor.spec)
                render = {"labels": result.ids, "colors": result.colors, "overlays": result.overlay_of_video}
                for kind, writer in writers.items():
                    writer.write(render[kind](), time)
