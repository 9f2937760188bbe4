"""Prediction of an image: its pictures, statistics and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.data.io import rle
from fastfcn_pl.data.io.label_ids import dataset_ids
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.evaluation.visualize import colorize, legend, overlay

SUFFIXES = {"labels": ".png", "colors": ".png", "overlays": ".png", "segments": ".json", "probabilities": ".npy"}
"""Kinds of output files of an image, with their suffixes."""
VIDEO_LEGEND = 60
"""Height in pixels of the legend below a video, which has three lines of names."""


@dataclass(frozen=True)
class Prediction:
    """Class indices `labels` `(H, W)` uint8 of an RGB `image` `(H, W, 3)` uint8."""

    image: np.ndarray
    labels: np.ndarray
    spec: DatasetSpec

    def ids(self) -> np.ndarray:
        """Return the labels as the data set's own ids `(H, W)`, uint8 or uint16, as its evaluation server expects."""
        return dataset_ids(self.spec)[self.labels]

    def colors(self) -> np.ndarray:
        """Return the labels in the data set's colours `(H, W, 3)`."""
        return colorize(self.labels, self.spec)

    def overlay(self) -> np.ndarray:
        """Return the colours blended over the image, above a legend of the predicted classes: `(H + legend, W, 3)`."""
        return np.vstack([self.blended(), self.legend()])

    def blended(self, opacity: float = 0.6) -> np.ndarray:
        """Return the colours blended over the image, `(H, W, 3)`."""
        return overlay(self.image, self.labels, self.spec, opacity)

    def overlay_of_video(self) -> np.ndarray:
        """Return the overlay with a legend cut or padded to `VIDEO_LEGEND` rows, so that all frames have one size."""
        strip = self.legend()[:VIDEO_LEGEND]
        strip = np.pad(strip, ((0, VIDEO_LEGEND - len(strip)), (0, 0), (0, 0)), constant_values=255)
        return np.vstack([self.blended(), strip])

    def legend(self) -> np.ndarray:
        """Return the legend `(h, W, 3)` of the predicted classes, largest first."""
        return legend(list(self.shares()), self.spec, self.image.shape[1])

    def shares(self) -> dict[int, float]:
        """Return the share of pixels by predicted class, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=self.spec.num_classes)
        return {int(c): counts[c] / self.labels.size for c in np.argsort(-counts, kind="stable") if counts[c]}

    def segments(self) -> list[dict[str, object]]:
        """Return the predicted classes in COCO's format, with the data set's own ids and run lengths of the pixels."""
        ids, size = dataset_ids(self.spec), list(self.labels.shape)
        return [
            {
                "category_id": int(ids[index]),
                "category": self.spec.classes[index],
                "area": int((self.labels == index).sum()),
                "segmentation": {"size": size, "counts": rle.encode(self.labels == index)},
            }
            for index in self.shares()
        ]

    def save(self, kind: str, path: Path) -> None:
        """Write `labels`, `colors`, `overlays` or `segments` atomically to `path`."""
        pictures: dict[str, Callable[[], np.ndarray]] = {
            "labels": self.ids,
            "colors": self.colors,
            "overlays": self.overlay,
        }
        with atomic_write(path) as temporary:
            if kind == "segments":
                temporary.write_text(json.dumps(self.segments()) + "\n", encoding="utf-8")
            else:
                encoded = BytesIO()  # Pillow's errors would hide a full disk
                Image.fromarray(pictures[kind]()).save(encoded, format="PNG")
                temporary.write_bytes(encoded.getbuffer())


def save_probabilities(scores: ScoreMap, path: Path) -> np.ndarray:
    """Write the class probabilities `(num_classes, H, W)`, float16, of an image, and return its labels `(H, W)`.

    Bands of rows are written one by one, since a large image does not fit into memory. The file is not memory-mapped,
    since a full disk would then kill the process.
    """
    _, height, width, classes = scores.shape
    labels = np.empty((height, width), np.uint8)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (classes, height, width)})
        start, row_bytes = file.tell(), width * np.dtype(np.float16).itemsize
        for top, bottom, band in scores.probabilities():
            probabilities = band[0].permute(2, 0, 1).cpu().numpy()
            labels[top:bottom] = probabilities.argmax(0)
            for index, rows in enumerate(probabilities.astype(np.float16)):
                file.seek(start + (index * height + top) * row_bytes)
                file.write(rows.tobytes())
    return labels
