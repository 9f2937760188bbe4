"""Videos and cameras: pictures in, pictures out, by PyAV."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastfcn_pl.contracts import UserError

SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"}
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


def is_camera(source: str) -> bool:
    """Tell whether an input is the number of a camera."""
    return source.isdecimal()


def is_video(source: str) -> bool:
    """Tell whether an input is a camera, or a file that is named as a video."""
    return is_camera(source) or Path(source).suffix.lower() in SUFFIXES


class Reader:
    """The pictures of the video file or camera `source`: iterate over `frames`."""

    def __init__(self, source: str) -> None:
        av = _av()
        form, name = None, source
        if is_camera(source):
            if sys.platform not in _CAMERAS:
                raise UserError(
                    f"input={source}: cameras are read on Linux and macOS only: record a video, and take it"
                )
            form, place = _CAMERAS[sys.platform]
            name = place.format(source)
        try:
            self.container = av.open(name, format=form)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"input={source} cannot be opened as a video ({_reason(error)})") from error
        if not self.container.streams.video:
            raise UserError(f"input={source} has no pictures: its streams are of other kinds")
        self.source, self.stream = source, self.container.streams.video[0]
        self.stream.thread_type = "AUTO"

    @property
    def length(self) -> int | None:
        """The number of pictures, where the file says it."""
        return self.stream.frames or None

    def frames(self) -> Iterator[tuple[np.ndarray, int | None]]:
        """Yield RGB pictures `(H, W, 3)`, upright, and their times in the stream's time base.

        Raises UserError where the file ends within a picture, or has none.
        """
        av, count = _av(), 0
        try:
            for frame in self.container.decode(self.stream):
                count += 1
                turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield np.ascontiguousarray(turned), frame.pts
        except av.FFmpegError as error:
            raise UserError(
                f"{self.source} is broken behind picture {count} ({_reason(error)}): restore it or leave it out"
            ) from error
        if count == 0:
            raise UserError(f"{self.source} is a video without pictures: restore it or leave it out")

    def close(self) -> None:
        self.container.close()


class Writer:
    """A video at `path`, as large as its first picture; sound and times are those of the video `like`.

    Pictures are RGB `(H, W, 3)`, which H.264 stores with losses, or `exact`, `(H, W)` of 8 or 16 bits, in FFV1.
    """

    def __init__(self, path: Path, exact: bool, like: Reader) -> None:
        self.exact, self.like, self.container = exact, like, _av().open(str(path), "w")
        self.stream: Any = None
        self.sound: dict[int, Any] = {}

    def write(self, picture: np.ndarray, time: int | None) -> None:
        """Append a picture, all of one size; of an odd one H.264 cannot take the last row or column."""
        if not self.exact:
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        form = "rgb24" if picture.ndim == 3 else "gray" if picture.dtype == np.uint8 else "gray16le"
        if self.stream is None:
            self._begin(picture.shape[:2], form)
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form)
        frame.pts, frame.time_base = time, self.like.stream.time_base
        self.container.mux(self.stream.encode(frame))

    def _begin(self, size: tuple[int, int], form: str) -> None:
        rate = self.like.stream.average_rate or 25
        self.stream = self.container.add_stream("ffv1" if self.exact else "libx264", rate=rate)
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = form if self.exact else "yuv420p"
        self.stream.codec_context.time_base = self.like.stream.time_base
        if not self.exact and not is_camera(self.like.source):
            for sound in self.like.container.streams.audio:
                with suppress(ValueError):  # MP4 does not take every sound: it is left out then
                    self.sound[sound.index] = self.container.add_stream_from_template(sound)

    def close(self) -> None:
        """Write what the encoder holds back, then the sound, and close the file."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())
        if self.sound:
            with _av().open(self.like.source) as source:
                for packet in source.demux(*(source.streams[index] for index in self.sound)):
                    if packet.dts is not None:  # the last, empty one has none
                        packet.stream = self.sound[packet.stream.index]
                        self.container.mux(packet)
        self.container.close()


@contextmanager
def reading(source: str) -> Iterator[Reader]:
    """Open a video or camera, and close it at the end."""
    reader = Reader(source)
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def writing(path: Path, exact: bool, like: Reader) -> Iterator[Writer]:
    """Open a video to write, and finish it at the end."""
    writer = Writer(path, exact, like)
    try:
        yield writer
        writer.close()
    finally:
        writer.container.close()


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UserError("videos and cameras need PyAV: pip install 'fastfcn-pl[video]'") from error
    av.logging.set_level(av.logging.PANIC)
    return av


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
