"""Labels of images and videos as files."""

from __future__ import annotations

import re
import traceback
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from fastfcn_pl.core import atomic_io
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.io.find_images import find_images
from fastfcn_pl.data.io.image_files import read_image
from fastfcn_pl.tools.predict import output_folder, prediction, video
from fastfcn_pl.tools.predict.output_folder import Targets
from fastfcn_pl.tools.predict.prediction import Prediction, save_probabilities
from fastfcn_pl.tools.predict.predictor import Predictor

_OF_VIDEOS = {"labels": ".mkv", "colors": ".mp4", "overlays": ".mp4"}
_NAMED = 20
"""The most images that are named where some were not labelled."""


def predict(cfg: DictConfig) -> None:
    """Write what `cfg.save` names of every image and video of `cfg.input`; what is done already is left alone.

    Raises UserError at the end where some could not be labelled, with their names.
    """
    if unknown := [kind for kind in cfg.save if kind not in prediction.SUFFIXES]:
        raise UserError(f"save={unknown[0]}: no such picture; {suggest(unknown[0], prediction.SUFFIXES)}")
    if not cfg.save:
        raise UserError(f"save=[] writes nothing: take some of {', '.join(prediction.SUFFIXES)}")
    if cfg.frames is not None and cfg.frames < 1:
        raise UserError(f"frames={cfg.frames}: label one at least, or all with frames=null")
    output = Path(cfg.output)
    base, targets = _targets(cfg.input, output, cfg.save)
    made_by = {"checkpoint": Path(cfg.checkpoint).name, "sha256": output_folder.fingerprint(cfg.checkpoint)}
    made_by |= {"precision": cfg.precision}
    if any(map(video.is_video, targets)):
        made_by |= {"frames": cfg.frames}
    with output_folder.opened(output, made_by, base, targets, cfg.overwrite) as missing:
        if len(missing) < len(targets):
            print(f"{len(targets) - len(missing)} images are done already (overwrite=true does them again)")
        if missing:
            _label(Predictor(cfg.checkpoint, cfg.device, cfg.precision, cfg.trust, cfg.accelerate), missing, cfg)


def _label(predictor: Predictor, missing: Targets, cfg: DictConfig) -> None:
    """Write the files of each input; one that fails is named at the end, a disk that is full ends it all."""
    failed: dict[str, str] = {}
    unforeseen: Exception | None = None
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for done, name in enumerate(progress.track(missing, description="images")):
            try:
                if video.is_video(name):
                    _label_video(predictor, name, missing[name], cfg.frames, progress)
                else:
                    _label_image(predictor, Path(name), missing[name])
            except UserError as error:
                failed[name] = str(error)
                if getattr(error.__cause__, "errno", None) in atomic_io.DISK_FULL_ERRORS:
                    raise UserError(
                        f"{error} ({done + 1 - len(failed)} of {len(missing)} images are labelled; the same command "
                        "labels the rest)"
                    ) from error
            except Exception as error:  # a network of another's making fails in any way, and one image ends no batch
                failed[name] = _failure(name, error)
                traceback.clear_frames(error.__traceback__)  # they hold the image
                unforeseen = unforeseen or error
    print(f"{len(missing) - len(failed)} images labelled in {cfg.output}")
    if failed:
        lines = list(failed.values())
        more = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        raise UserError(
            f"{len(failed)} of {len(missing)} images were not labelled: {'; '.join(lines[:_NAMED])}{more}"
        ) from unforeseen


def _failure(name: str, error: Exception) -> str:
    """Return the line for an image whose labelling ended in an error of Python's, torch's or a library's."""
    message = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or re.search(r"alloc|out of memory", message, re.IGNORECASE):
        return f"{name} does not fit into memory ({message or 'MemoryError'}): make it smaller, or leave it out"
    return f"{name} could not be labelled ({type(error).__name__}: {message})"


def _targets(source: str, output: Path, kinds: list[str]) -> tuple[Path, Targets]:
    """Return the folder of the input, and the files to write of each image: named as its path below that folder."""
    if video.is_camera(source):
        base, found = Path(), [Path(source)]
    else:
        base, found = find_images(source, video.SUFFIXES, output_folder.is_output(output, prediction.SUFFIXES))
    targets: Targets = {}
    owners: dict[Path, Path] = {}
    for path in found:
        name = path.relative_to(base)
        moving = video.is_video(str(path))
        if moving and (still := [kind for kind in kinds if kind not in _OF_VIDEOS]):
            raise UserError(
                f"save={still[0]}: not of a video such as {path}; of videos there are {', '.join(_OF_VIDEOS)}"
            )
        suffixes = _OF_VIDEOS if moving else prediction.SUFFIXES
        targets[str(path)] = {kind: output / kind / name.with_suffix(suffixes[kind]) for kind in kinds}
        for target in targets[str(path)].values():
            if target in owners:
                raise UserError(f"{owners[target]} and {path} would both be written as {target}: rename one")
            owners[target] = path
    return base, targets


def _label_image(predictor: Predictor, path: Path, targets: dict[str, Path]) -> None:
    image = np.asarray(read_image(path, upright=True))
    wanted = dict(targets)
    if probabilities := wanted.pop("probabilities", None):
        labels = save_probabilities(predictor.scores(image), probabilities)
    else:
        labels = predictor(image)
    for kind, target in wanted.items():
        Prediction(image, labels, predictor.spec).save(kind, target)


def _label_video(
    predictor: Predictor, source: str, targets: dict[str, Path], frames: int | None, progress: Progress
) -> None:
    """Write a video of each kind, of the first `frames` pictures; Ctrl-C ends a camera's, and keeps what is done."""
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
                found = Prediction(image, predictor(image), predictor.spec)
                made = {"labels": found.ids, "colors": found.colors, "overlays": found.overlay_of_video}
                for kind, writer in writers.items():
                    writer.write(made[kind](), time)
