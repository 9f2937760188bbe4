"""Splits of annotated images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.prepare.annotations.annotated import AnnotatedImage


def assign_splits(images: Sequence[AnnotatedImage], files: Sequence[Path], val_share: float) -> list[str]:
    """Return the split of each image; raises UserError if an image occurs twice or there is nothing to train on.

    Images are trained on unless the annotations say otherwise. If none is for validation, `val_share` of them are taken
    by a hash of their names, so that adding images moves few others.
    """
    origins: dict[Path, Path] = {}
    for image, file in zip(images, files, strict=True):
        if file in origins:
            raise UserError(
                f"{file} is annotated twice, in {origins[file]} and {image.origin}: remove one, or choose files with "
                "prepare.files='<glob>'"
            )
        origins[file] = image.origin
    splits = [image.split or "train" for image in images]
    trained = [i for i, split in enumerate(splits) if split == "train"]
    if "val" not in splits:
        trained.sort(key=lambda i: hashlib.sha256(files[i].name.encode(errors="replace")).digest())
        for i in trained[: max(1, round(val_share * len(trained)))]:
            splits[i] = "val"
    if "train" not in splits:
        raise UserError(f"{images[0].origin} leaves no image for training: annotate at least two, not only for val")
    return splits
