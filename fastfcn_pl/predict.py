"""Label images: `python -m fastfcn_pl.predict checkpoint=<path> input=<image, folder or glob> output=<dir>`.

From Python: `labels = Predictor("best.ckpt")("photo.jpg")`.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from fastfcn_pl import launch
from fastfcn_pl.contracts import UserError, suggest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"}
_KINDS = ("labels", "colors", "overlays")


class Predictor:
    """Labels images as a checkpoint's network and protocol do, on `device`: `auto` is a GPU where there is one."""

    def __init__(self, checkpoint: str | Path, device: str = "auto") -> None:
        import torch

        from fastfcn_pl.checkpoint import load

        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.module = load(checkpoint).to(self.device)
        self.spec = self.module.spec

    def __call__(self, image: str | Path | Image.Image) -> np.ndarray:
        """Return class indices `(H, W)` uint8 for an RGB image, or for a file, turned by its EXIF orientation.

        Raises UserError where a file cannot be read.
        """
        import numpy as np
        import torch

        from fastfcn_pl.data.files import read_image

        rgb = np.asarray(read_image(Path(image), upright=True) if isinstance(image, (str, Path)) else image)
        x = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].to(self.device)
        with torch.inference_mode():
            normalized = self.module.normalize(x)
            labels = self.module.protocol(self.module.model, normalized, rgb.shape[:2]).labels()
        return labels[0].byte().cpu().numpy()


def predict(cfg: DictConfig) -> None:
    """Write what `cfg.save` names of every image of `cfg.input`; images that are done already are left alone.

    Raises UserError at the end where images could not be read, with their names.
    """
    from rich.console import Console
    from rich.progress import track

    if unknown := [kind for kind in cfg.save if kind not in _KINDS]:
        raise UserError(f"save={unknown[0]}: no such picture; {suggest(unknown[0], _KINDS)}")
    targets = _targets(cfg.input, Path(cfg.output), cfg.save)
    missing = (
        targets if cfg.overwrite else {k: v for k, v in targets.items() if not all(p.is_file() for p in v.values())}
    )
    if len(missing) < len(targets):
        print(f"{len(targets) - len(missing)} images are done already (overwrite=true does them again)")
    predictor = Predictor(cfg.checkpoint, cfg.device)
    failed = {}
    console = Console(stderr=True)
    for path in track(missing, "images", console=console, disable=not console.is_terminal):
        try:
            _write(predictor, path, missing[path])
        except UserError as error:
            failed[path] = str(error)
    print(f"{len(missing) - len(failed)} images labelled in {cfg.output}")
    if failed:
        raise UserError(f"{len(failed)} of {len(missing)} images were not labelled: {'; '.join(failed.values())}")


def _targets(source: str, output: Path, kinds: list[str]) -> dict[Path, dict[str, Path]]:
    """Return for each image the files to write, by kind: its path below the input's folder, as PNG."""
    if Path(source).is_dir():
        base, found = Path(source), [path for path in Path(source).rglob("*") if path.suffix.lower() in _SUFFIXES]
    else:
        found = [Path(path) for path in glob.glob(source, recursive=True) if Path(path).is_file()]
        base = Path(glob.escape(source).partition("[")[0]).parent if len(found) != 1 else found[0].parent
    if not found:
        raise UserError(f"input={source}: no image there; give an image, a folder of images or a glob in quotes")
    targets: dict[Path, dict[str, Path]] = {}
    owners: dict[Path, Path] = {}
    for path in sorted(found):
        name = path.relative_to(base).with_suffix(".png")
        if name in owners:
            raise UserError(f"{owners[name]} and {path} would both be written as {name}: rename one")
        owners[name] = path
        targets[path] = {kind: output / kind / name for kind in kinds}
    return targets


def _write(predictor: Predictor, path: Path, targets: dict[str, Path]) -> None:
    import numpy as np
    from PIL import Image

    from fastfcn_pl.data.files import read_image
    from fastfcn_pl.data.labels import own_ids
    from fastfcn_pl.staging import staged
    from fastfcn_pl.visualize import colorize, legend, overlay

    image, spec = read_image(path, upright=True), predictor.spec
    labels = predictor(image)

    def with_legend() -> np.ndarray:
        seen = [int(c) for c in np.unique(labels)]
        return np.vstack([overlay(np.asarray(image), labels, spec), legend(seen, spec, image.width)])

    pictures: dict[str, Callable[[], np.ndarray]] = {
        "labels": lambda: own_ids(spec)[labels],
        "colors": lambda: colorize(labels, spec),
        "overlays": with_legend,
    }
    for kind, target in targets.items():
        with staged(target) as hidden:
            Image.fromarray(pictures[kind]()).save(hidden, format="PNG")


if __name__ == "__main__":
    launch.main("predict", predict)
