"""Small videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_video(path: Path, frames: list[np.ndarray], sound: bool = False) -> Path:
    """Write RGB pictures `(H, W, 3)` of even size, 10 a second, with a tone as long if asked; return `path`."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.height, video.width, video.pix_fmt, video.options = *frames[0].shape[:2], "yuv420p", {"crf": "5"}
        if sound:
            audio = container.add_stream("aac", rate=8000, layout="mono")
            length = 800 * len(frames)
            tone = (0.3 * np.sin(np.arange(length) / 3)).astype(np.float32)[None]
            wave = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            wave.sample_rate = 8000
            container.mux(audio.encode(wave))
            container.mux(audio.encode())
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
    return path
