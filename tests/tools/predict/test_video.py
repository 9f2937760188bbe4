"""Videos: every picture, at its time, with its sound."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.predict import video
from tests.fakes.folder import photograph
from tests.fakes.video import write_video

FRAMES = [photograph(i, (48, 64))[0] for i in range(5)]


def _read(path: Path) -> list[np.ndarray]:
    with video.reading(str(path)) as reader:
        return [picture for picture, _ in reader.frames()]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_copy_has_the_pictures_their_times_and_the_sound(suffix: str, tmp_path: Path) -> None:
    original = write_video(tmp_path / f"a{suffix}", FRAMES, sound=True)
    with video.reading(str(original)) as reader, video.writing(tmp_path / "b.mp4", False, reader) as copy:
        assert reader.length in (5, None)
        for picture, time in reader.frames():
            copy.write(picture, time)
    assert np.abs(np.subtract(_read(tmp_path / "b.mp4"), FRAMES, dtype=float)).mean() < 8
    with av.open(str(original)) as a, av.open(str(tmp_path / "b.mp4")) as b:
        assert [float(f.time) for f in b.decode(video=0)] == pytest.approx([float(f.time) for f in a.decode(video=0)])
    with av.open(str(original)) as a, av.open(str(tmp_path / "b.mp4")) as b:
        heard = [[bytes(packet) for packet in container.demux(audio=0)] for container in (a, b)]
    assert heard[0] == heard[1]
    assert len(heard[0]) > 3


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_labels_are_stored_exactly(kind: type, tmp_path: Path) -> None:
    original = write_video(tmp_path / "a.mp4", FRAMES[:3])
    labels = [np.random.default_rng(i).integers(0, np.iinfo(kind).max, (47, 33)).astype(kind) for i in range(3)]
    with video.reading(str(original)) as reader, video.writing(tmp_path / "b.mkv", True, reader) as copy:
        for picture, (_, time) in zip(labels, reader.frames(), strict=True):
            copy.write(picture, time)
    with av.open(str(tmp_path / "b.mkv")) as stored:
        form = "gray" if kind is np.uint8 else "gray16le"
        assert np.array_equal([f.to_ndarray(format=form) for f in stored.decode(video=0)], labels)


def test_a_picture_of_odd_size_loses_a_row_and_a_column(tmp_path: Path) -> None:
    original = write_video(tmp_path / "a.mp4", FRAMES[:2])
    with video.reading(str(original)) as reader, video.writing(tmp_path / "b.mp4", False, reader) as copy:
        for picture, time in reader.frames():
            copy.write(picture[:-1, :-1], time)
    assert _read(tmp_path / "b.mp4")[0].shape == (46, 62, 3)


def test_a_video_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", FRAMES * 4).read_bytes()
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"no\.mp4 cannot be opened as a video"):
        _read(tmp_path / "no.mp4")
    with pytest.raises(UserError, match=r"gone\.mp4 cannot be opened as a video \(No such file"):
        _read(tmp_path / "gone.mp4")
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(800))
    with pytest.raises(UserError, match=r"sound\.mp4 has no video stream"):
        _read(tmp_path / "sound.mp4")
    (tmp_path / "head.mkv").write_bytes(whole[:700])
    with pytest.raises(UserError, match=r"head\.mkv (is a video without frames|is damaged after frame 0|cannot be)"):
        _read(tmp_path / "head.mkv")


def test_a_camera_is_a_number_and_read_till_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert video.is_camera("0")
    assert not video.is_camera("a0")
    with pytest.raises(UserError, match="input=97 cannot be opened as a video"):
        video.Reader("97")
    monkeypatch.setitem(video._CAMERAS, "linux", ("lavfi", "testsrc=size=64x48:rate=5:duration={}"))
    monkeypatch.setattr("sys.platform", "linux")
    with video.reading("2") as reader:
        assert [picture.shape for picture, _ in reader.frames()] == [(48, 64, 3)] * 10
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(UserError, match="cameras are supported on Linux and macOS only"):
        video.Reader("0")


def test_a_video_is_turned_as_its_file_says(tmp_path: Path) -> None:
    content = bytearray(write_video(tmp_path / "a.mp4", FRAMES[:2]).read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # of the track: as in a phone that was held upright
    quarter = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(number.to_bytes(4, signed=True) for number in quarter)
    (tmp_path / "turned.mp4").write_bytes(content)
    expected = [np.rot90(picture, -1) for picture in _read(tmp_path / "a.mp4")]
    assert np.array_equal(_read(tmp_path / "turned.mp4"), expected)


@pytest.mark.parametrize("name", ["12:30 [1].mp4", "concat:a|b.mp4", "%03d.mp4", "http:.mkv"])
def test_a_name_is_a_path_whatever_is_in_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), FRAMES[:2]).rename(name)
    assert len(_read(Path(name))) == 2
    with video.reading(name) as reader, video.writing(Path(f".{name}"), False, reader) as copy:
        for picture, time in reader.frames():
            copy.write(picture, time)
    assert len(_read(Path(f".{name}"))) == 2


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    other = write_video(tmp_path / "a.mp4", FRAMES[:2])
    (tmp_path / "hls.mkv").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.avi").write_text("ffconcat version 1.0\nfile a.mp4\n")
    for name in ("hls.mkv", "concat.avi"):
        with pytest.raises(UserError, match=rf"{name} cannot be opened as a video"):
            _read(tmp_path / name)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4 cannot be opened as a video \(it is a FIFO\)"):
        _read(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([None, None, None], [0, 4, 8]),
        ([0, 4, 8], [0, 4, 8]),
        ([3, 3, 9, 1, 14], [3, 7, 9, 13, 14]),
        ([90, 94, 0, 4, 200], [90, 94, 98, 102, 200]),
        ([-8, -4, None, 8], [-8, -4, 0, 8]),
    ],
)
def test_times_go_on(given: list[int | None], told: list[int]) -> None:
    last, times = None, []
    for time in given:
        last = video._later(time, last, 4)
        times.append(last)
    assert times == told


def test_sound_whose_times_start_again_is_kept(tmp_path: Path) -> None:
    part = write_video(tmp_path / "a.mpg", FRAMES, sound=True, rate=25, codecs=("mpeg2video", "mp2"))
    (tmp_path / "joined.mpg").write_bytes(part.read_bytes() * 2)
    with (
        video.reading(str(tmp_path / "joined.mpg")) as reader,
        video.writing(tmp_path / "b.mp4", False, reader) as copy,
    ):
        for picture, time in reader.frames():
            copy.write(picture, time)
    with av.open(str(tmp_path / "joined.mpg")) as a, av.open(str(tmp_path / "b.mp4")) as b:
        packets = [len([p for p in container.demux(audio=0) if p.size]) for container in (a, b)]
    assert packets[0] == packets[1] > 3


def test_a_video_too_small_for_its_overlay_is_named(tmp_path: Path) -> None:
    original = write_video(tmp_path / "a.mp4", FRAMES[:1])
    line, copied = r"a\.mp4 is too small", tmp_path / "b.mp4"
    with (
        pytest.raises(UserError, match=line),
        video.reading(str(original)) as reader,
        video.writing(copied, False, reader) as copy,
    ):
        copy.write(FRAMES[0][:1], 0)
