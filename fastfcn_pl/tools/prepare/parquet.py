"""Images and masks in the Parquet files of Hugging Face's `datasets`, written as files that `data=folder` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from fastfcn_pl.core.types import UserError, listed
from fastfcn_pl.data.io.image_files import FORMATS
from fastfcn_pl.data.io.walk import walk
from fastfcn_pl.tools.libraries import import_library
from fastfcn_pl.tools.prepare.annotations.annotated import AnnotatedImage, file_split, is_list_of_names
from fastfcn_pl.tools.prepare.annotations.output import OUTPUT, Output, is_output
from fastfcn_pl.tools.prepare.annotations.splits import assign_splits
from fastfcn_pl.tools.progress_bar import bar

_ROWS = 16
"""Rows that are read together."""
_IMAGE_NAMES = ("image", "images", "img", "pixel_values")


class Parquet:
    """Parquet files below a root, with the encoded images of the columns `image` and `mask`, in any folders.

    A null column is recognised: it is the only other one that holds images. Files are of the split that their names
    or folders mention, as `datasets` writes them. If none is for validation, `val_share` of the images are.
    """

    def __init__(self, *, image: str | None, mask: str | None, val_share: float) -> None:
        if not 0 < val_share < 1:
            raise UserError(f"prepare.val_share={val_share}: give a share between 0 and 1, such as 0.2")
        self.image, self.mask, self.val_share = image, mask, val_share

    def convert(
        self, root: Path, name: str, classes: list[str] | None, max_pixels: int | None, num_workers: int | None
    ) -> None:
        """Write `prepared/` below `root`, all or nothing: images and masks byte for byte, lists and an option."""
        if not is_list_of_names(classes):
            raise UserError(
                "data.classes is not set: name the classes of the ids in the masks, such as [background,thing]"
            )
        files = sorted(walk(root, (".parquet",), skip=is_output))
        if not files:
            raise UserError(f"{root} has no Parquet file: give the folder that holds them as data.root")
        output, skipped = Output(root, name, tuple(classes or ()), "later", max_pixels), Counter[str]()
        rows: list[AnnotatedImage] = []
        images: list[str] = []
        masks: list[str] = []
        with output.replaced() as folder, bar("writing images", of_bytes=False) as update:
            for done, path in enumerate(files):
                update(done, len(files))
                for number, (image, mask) in enumerate(self._rows(path)):
                    if mask is None:
                        skipped["rows without a mask"] += 1
                        continue
                    stem = f"{path.relative_to(root).with_suffix('').as_posix()}/{number:06d}"
                    images.append(f"{OUTPUT}/{_write(folder, f'images/{stem}', image, path)}")
                    masks.append(_write(folder, f"masks/{stem}", mask, path))
                    rows.append(AnnotatedImage(path, stem, None, split=file_split(path, root)))
            if not rows:
                raise UserError(f"{listed(files, 3)} holds no row with a mask: give the files of a labelled split")
            splits = assign_splits(rows, [Path(image) for image in images], self.val_share)
            output.write_option(folder, images, masks, splits, [f"{len(rows)} images of {len(files)} Parquet files"])
        print(f"parquet: {len(rows)} images in {output.folder}")
        output.print_next(skipped, splits)

    def _rows(self, path: Path) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the encoded image and mask of each row, None for a missing mask."""
        with _reading(path):
            file = import_library("pyarrow.parquet", "parquet", "Parquet files").ParquetFile(path)
            columns = self._columns(file.schema_arrow, path)
            for batch in file.iter_batches(_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    image, mask = (_content(row[column], column, path) for column in columns)
                    if image is None:
                        raise UserError(f"{path} has a row without an image in column {columns[0]}: remove the row")
                    yield image, mask

    def _columns(self, schema: Any, path: Path) -> tuple[str, str]:
        """Return the names of the columns of images and masks."""
        holding = [field.name for field in schema if _holds_images(field.type)]
        image = self.image or next((name for name in holding if name in _IMAGE_NAMES), None)
        others = [name for name in holding if name != image]
        mask = self.mask or (others[0] if len(others) == 1 else None)
        if image is None or mask is None or not {image, mask} <= {*holding} or image == mask:
            raise UserError(
                f"{path} has the columns {listed(holding) or 'none'} of images, of which prepare.image={image} and "
                f"prepare.mask={mask} were taken: set both"
            )
        return image, mask


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise UserError for an error of the library."""
    try:
        yield
    except (ValueError, OSError) as error:  # what pyarrow raises is one of both
        if getattr(error, "filename", None) or getattr(error, "errno", None):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as Parquet ({reason}): download it again, or leave it out") from error


def _holds_images(kind: Any) -> bool:
    """Return whether a column is of encoded files: bytes, or as `datasets` stores them, with a path."""
    types = import_module("pyarrow.types")
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _content(cell: Any, column: str, path: Path) -> bytes | None:
    """Return the bytes of a cell; raises UserError if it only names a file."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None and isinstance(cell, dict) and cell.get("path"):
        raise UserError(
            f"{path} names the file {cell['path']} in column {column} instead of holding it: write the Parquet files "
            "with embedded images, as to_parquet and push_to_hub of datasets do"
        )
    return content


def _write(folder: Path, name: str, content: bytes, path: Path) -> str:
    """Write an encoded image, with the extension of its format; return its path below `folder`."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            extension = {"JPEG": "jpg", "TIFF": "tif"}.get(image.format or "", str(image.format).lower())
    except Exception as error:  # decoders raise anything for a damaged file
        raise UserError(f"{path}, row of {name}, is not one of {listed(FORMATS)}: leave it out") from error
    target = folder / f"{name}.{extension}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return f"{name}.{extension}"
