"""Videos and cameras: pictures in, pictures out, by PyAV."""

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
"""FFmpeg's readers for these files. Others, such as that of playlists, could make it open further files and servers."""
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


def is_camera(source: str) -> bool:
    """Tell whether an input is the number of a camera."""
    return source.isdecimal() and not os.path.exists(source)


def is_video(source: str) -> bool:
    """Tell whether an input is a camera, or a file that is named as a video."""
    return is_camera(source) or Path(source).suffix.lower() in SUFFIXES


class Reader:
    """The pictures of the video file or camera `source`: iterate over `frames`."""

    def __init__(self, source: str) -> None:
        av = _av()
        form, name = None, _url(source)
        options = {"format_whitelist": _FORMATS}
        if is_camera(source):
            if sys.platform not in _CAMERAS:
                raise UserError(
                    f"input={source}: cameras are read on Linux and macOS only: record a video, and take it"
                )
            form, place = _CAMERAS[sys.platform]
            name, options = place.format(source), {}
        elif strange := non_file_kind(source):
            raise UserError(f"input={source} cannot be opened as a video (it is {strange})")
        try:
            self.container = av.open(name, format=form, options=options)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"input={source} cannot be opened as a video ({_reason(error)})") from error
        if not self.container.streams.video:
            self.container.close()
            raise UserError(f"input={source} has no pictures: its streams are of other kinds")
        self.source, self.stream = source, self.container.streams.video[0]
        self.stream.thread_type = "AUTO"

    @property
    def length(self) -> int | None:
        """The number of pictures, where the file says it."""
        return self.stream.frames or None

    def frames(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield RGB pictures `(H, W, 3)`, upright, and their times in the stream's time base, each later than the last.

        A time that the file does not give, or gives out of order, is one frame after the last: so are those of AVI,
        which has none, and of joined files, in which times start again. Raises UserError where the file ends within a
        picture, has none, or changes their size.
        """
        av, count, last, size = _av(), 0, None, None
        try:
            for frame in self.container.decode(self.stream):
                picture = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                count, size = count + 1, size or picture.shape[:2]
                if picture.shape[:2] != size:
                    raise UserError(
                        f"{self.source} changes its size from {size[1]}x{size[0]} to {picture.shape[1]}x"
                        f"{picture.shape[0]} at picture {count}: cut it there, and label its parts"
                    )
                last = _later(frame.pts, last, self._step)
                yield picture, last
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(
                f"{self.source} is broken behind picture {count} ({_reason(error)}): restore it or leave it out"
            ) from error
        if count == 0:
            raise UserError(f"{self.source} is a video without pictures: restore it or leave it out")

    @property
    def rate(self) -> Fraction:
        """Pictures a second: as far as the file says it, the mean."""
        return self.stream.average_rate or Fraction(25)

    @property
    def _step(self) -> int:
        return max(1, round(1 / (self.rate * self.stream.time_base)))

    def close(self) -> None:
        self.container.close()


class Writer:
    """A video at `path`, as large as its first picture; sound and times are those of the video `like`.

    Pictures are RGB `(H, W, 3)`, which H.264 stores with losses, or `exact`, `(H, W)` of 8 or 16 bits, in FFV1.
    """

    def __init__(self, path: Path, exact: bool, like: Reader) -> None:
        self.exact, self.like, self.container = exact, like, _av().open(_url(path), "w")
        self.stream: Any = None
        self.sound: dict[int, Any] = {}

    def write(self, picture: np.ndarray, time: int) -> None:
        """Append a picture, all of one size; of an odd one H.264 cannot take the last row or column.

        Raises UserError where that leaves nothing.
        """
        if not self.exact:
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        if picture.size == 0:
            raise UserError(f"{self.like.source} is too small for a video of its labels: save=[labels] takes it")
        form = "rgb24" if picture.ndim == 3 else "gray" if picture.dtype == np.uint8 else "gray16le"
        if self.stream is None:
            self._begin(picture.shape[:2], form)
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form)
        frame.pts, frame.time_base = time, self.like.stream.time_base
        self.container.mux(self.stream.encode(frame))

    def _begin(self, size: tuple[int, int], form: str) -> None:
        self.stream = self.container.add_stream("ffv1" if self.exact else "libx264", rate=self.like.rate)
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
            last: dict[int, int] = {}
            with _av().open(_url(self.like.source)) as source:
                for packet in source.demux(*(source.streams[index] for index in self.sound)):
                    if packet.dts is not None:  # the last, empty one has none
                        index = packet.stream.index
                        last[index] = _later(packet.dts, last.get(index), packet.duration or 1)
                        packet.dts = packet.pts = last[index]  # sound is stored in the order in which it is heard
                        packet.stream = self.sound[index]
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
    """Open a video to write, and finish it at the end; raises UserError where it cannot be encoded."""
    writer = Writer(path, exact, like)
    try:
        yield writer
        writer.close()
    except BaseException as error:
        with suppress(Exception):  # it cannot be finished, either
            writer.container.close()
        if isinstance(error, _av().FFmpegError) and error.errno not in DISK_ERRORS:
            raise UserError(f"{like.source} cannot be written as a video ({_reason(error)})") from error
        raise


def _later(time: int | None, last: int | None, step: int) -> int:
    """Return `time` if it is after the `last` one, else the time a `step` after that."""
    if last is None:
        return time or 0
    return time if time is not None and time > last else last + step


def _url(path: str | Path) -> str:
    """Return the name by which FFmpeg takes a path for one, also with a colon in it."""
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
