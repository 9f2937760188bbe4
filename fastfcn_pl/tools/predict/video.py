"""Reading and writing of videos, and reading of cameras, with PyAV."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastfcn_pl.core.atomic_io import DISK_ERRORS
from fastfcn_pl.core.types import UserError
from fastfcn_pl.data.io.walk import non_file_kind

SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"}
_FORMATS = "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,wav"
"""FFmpeg's demuxers for these files. Others, such as playlists, could open further files and servers."""
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


def is_camera(source: str) -> bool:
    """Return whether an input is the number of a camera."""
    return source.isdecimal() and not os.path.exists(source)


def is_video(source: str) -> bool:
    """Return whether an input is a camera, or a file with the suffix of a video."""
    return is_camera(source) or Path(source).suffix.lower() in SUFFIXES


class Reader:
    """Reader of the frames of a video file or camera."""

    def __init__(self, source: str) -> None:
        av = _av()
        form, name = None, _url(source)
        options = {"format_whitelist": _FORMATS}
        if is_camera(source):
            if sys.platform not in _CAMERAS:
                raise UserError(
                    f"input={source}: cameras are supported on Linux and macOS only: record a video instead"
                )
            form, place = _CAMERAS[sys.platform]
            name, options = place.format(source), {}
        elif kind := non_file_kind(source):
            raise UserError(f"input={source} cannot be opened as a video (it is {kind}): give a file")
        try:
            self.container = av.open(name, format=form, options=options)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"input={source} cannot be opened as a video ({_reason(error)})") from error
        if not self.container.streams.video:
            self.container.close()
            raise UserError(f"input={source} has no video stream: give another file")
        self.source, self.stream = source, self.container.streams.video[0]
        self.stream.thread_type = "AUTO"

    @property
    def length(self) -> int | None:
        """Number of frames, if the file states it."""
        return self.stream.frames or None

    def frames(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield upright RGB frames `(H, W, 3)` and their increasing times in the stream's time base.

        A missing or decreasing time becomes one frame after the last one. AVI files have no times, and in concatenated
        files they start again. Raises UserError if a frame is damaged, if there is none, or if their size changes.
        """
        av, count, last, size = _av(), 0, None, None
        try:
            for frame in self.container.decode(self.stream):
                picture = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                count, size = count + 1, size or picture.shape[:2]
                if picture.shape[:2] != size:
                    raise UserError(
                        f"{self.source} changes its size from {size[1]}x{size[0]} to {picture.shape[1]}x"
                        f"{picture.shape[0]} at frame {count}: split it there, and predict its parts"
                    )
                last = _later(frame.pts, last, self._step)
                yield picture, last
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(
                f"{self.source} is damaged after frame {count} ({_reason(error)}): restore it, or leave it out"
            ) from error
        if count == 0:
            raise UserError(f"{self.source} is a video without frames: restore it, or leave it out")

    @property
    def rate(self) -> Fraction:
        """Mean frames per second, 25 if the file does not state it."""
        return self.stream.average_rate or Fraction(25)

    @property
    def _step(self) -> int:
        return max(1, round(1 / (self.rate * self.stream.time_base)))

    def close(self) -> None:
        self.container.close()


class Writer:
    """Writer of a video at `path`, with the size of the first frame and the sound and times of the video `like`.

    Frames are RGB `(H, W, 3)` in lossy H.264, or with `exact` `(H, W)` of 8 or 16 bits in lossless FFV1.
    """

    def __init__(self, path: Path, exact: bool, like: Reader) -> None:
        self.exact, self.like, self.container = exact, like, _av().open(_url(path), "w")
        self.stream: Any = None
        self.sound: dict[int, Any] = {}

    def write(self, picture: np.ndarray, time: int) -> None:
        """Append a frame; H.264 needs even sizes and drops an odd last row or column.

        Raises UserError if nothing is left.
        """
        if not self.exact:
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        if picture.size == 0:
            raise UserError(f"{self.like.source} is too small for H.264: use save=[labels]")
        form = "rgb24" if picture.ndim == 3 else "gray" if picture.dtype == np.uint8 else "gray16le"
        if self.stream is None:
            self._add_streams(picture.shape[:2], form)
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form)
        frame.pts, frame.time_base = time, self.like.stream.time_base
        self.container.mux(self.stream.encode(frame))

    def _add_streams(self, size: tuple[int, int], form: str) -> None:
        self.stream = self.container.add_stream("ffv1" if self.exact else "libx264", rate=self.like.rate)
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = form if self.exact else "yuv420p"
        self.stream.codec_context.time_base = self.like.stream.time_base
        if not self.exact and not is_camera(self.like.source):
            for sound in self.like.container.streams.audio:
                with suppress(ValueError):  # MP4 does not support every sound format; drop it then
                    self.sound[sound.index] = self.container.add_stream_from_template(sound)

    def close(self) -> None:
        """Flush the encoder, copy the sound, and close the file."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())
        if self.sound:
            last: dict[int, int] = {}
            with _av().open(_url(self.like.source)) as source:
                for packet in source.demux(*(source.streams[index] for index in self.sound)):
                    if packet.dts is not None:  # the last packet is empty
                        index = packet.stream.index
                        last[index] = _later(packet.dts, last.get(index), packet.duration or 1)
                        packet.dts = packet.pts = last[index]  # sound is stored in presentation order
                        packet.stream = self.sound[index]
                        self.container.mux(packet)
        self.container.close()


@contextmanager
def reading(source: str) -> Iterator[Reader]:
    """Open a video or camera for reading."""
    reader = Reader(source)
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def writing(path: Path, exact: bool, like: Reader) -> Iterator[Writer]:
    """Open a video for writing; raises UserError if it cannot be encoded."""
    writer = Writer(path, exact, like)
    try:
        yield writer
        writer.close()
    except BaseException as error:
        with suppress(Exception):  # the file is unfinished
            writer.container.close()
        if isinstance(error, _av().FFmpegError) and error.errno not in DISK_ERRORS:
            raise UserError(f"{like.source} cannot be written as a video ({_reason(error)})") from error
        raise


def _later(time: int | None, last: int | None, step: int) -> int:
    """Return `time` if it is after `last`, else `last` plus `step`."""
    if last is None:
        return time or 0
    return time if time is not None and time > last else last + step


def _url(path: str | Path) -> str:
    """Return a URL that FFmpeg treats as a path, even with a colon in it."""
    return f"file:{path}"


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UserError("videos and cameras need PyAV: pip install 'fastfcn-pl[video]'") from error
    av.logging.set_level(av.logging.PANIC)
    return av


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
