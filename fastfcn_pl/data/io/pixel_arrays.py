"""Arrays of pixels in the forms that users have, as RGB `(H, W, 3)`, uint8."""

from __future__ import annotations

import numpy as np

from fastfcn_pl.core.types import UserError

RULE = (
    "give a uint8 RGB array of shape (H, W, 3), floats from 0 to 1, grey (H, W), RGBA (H, W, 4), any of them with the "
    "channels first, a PIL image, or the path of a file"
)
_CHANNELS = (1, 3, 4)


def rgb_array(pixels: np.ndarray) -> np.ndarray:
    """Return `pixels` as RGB `(H, W, 3)`, uint8.

    The last axis holds the channels if its length is 1, 3 or 4, else the first. Floats are from 0 to 1. One channel is
    grey; a fourth one is alpha, which is dropped. Raises UserError for any other array.
    """
    refusal = UserError(f"the image is a ndarray of {pixels.dtype} and shape {pixels.shape}: {RULE}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS:
        pixels = np.moveaxis(pixels, 0, 2)
    is_float = np.issubdtype(pixels.dtype, np.floating)
    if pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS or not (is_float or pixels.dtype == np.uint8):
        raise refusal
    if is_float and pixels.size:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # also NaN
            raise UserError(
                f"the image has floats from {low:.3g} to {high:.3g}: scale them to 0 to 1, without normalising, or "
                "give uint8 from 0 to 255"
            )
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels[..., :3]
