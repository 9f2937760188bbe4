"""Small videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_HERTZ = 16000


def write_video(
    path: Path,
    frames: list[np.ndarray],
    sound: bool = False,
    rate: int = 10,
    codecs: tuple[str, str] = ("libx264", "aac"),
) -> Path:
    """Write RGB pictures `(H, W, 3)` of even size, `rate` a second, with a tone as long if asked; return `path`.

    H.264 refers to later pictures, too.
    """
    import av

    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codecs[0], rate=rate)
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], "yuv420p"
        if codecs[0] == "libx264":
            video.options = {"crf": "5"}
        if sound:
            audio: Any = container.add_stream(codecs[1], rate=_HERTZ, layout="mono")
            tone = (0.3 * np.sin(np.arange(_HERTZ // rate * len(frames)) / 6)).astype(np.float32)[None]
            wave = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            wave.sample_rate = _HERTZ
            container.mux(audio.encode(wave))
            container.mux(audio.encode())
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
    return path
