"""Predict on what folders, disks and videos of users hold; a fake that labels by shade stands for the network."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.predict import command as predicting
from fastfcn_pl.tools.predict.command import predict
from tests.fakes.predictor import SPEC, FakePredictor, write_shade
from tests.fakes.video import write_video

Run = Callable[..., dict[str, int]]
STORED = sorted(SPEC.labels)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Callable[..., DictConfig]) -> Run:
    """Predict in the test's folder, with the output in `out`; return the shade of each image that is labelled there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predicting, "Predictor", FakePredictor)
    Path("net.ckpt").write_text("weights")
    cfg = make_config("checkpoint=net.ckpt", "input=in", "output=out", "save=[labels]", name="predict", run_dir=False)

    def run(**keys: Any) -> dict[str, int]:
        call = cfg.copy()
        call.update(keys)
        predict(call)
        return _labels(Path(call.output))

    return run


def _labels(output: Path) -> dict[str, int]:
    """Return the shade of each label image, by its path; it is one over the whole of it."""
    found = {}
    for path in sorted((output / "labels").rglob("*.png")):
        (shade,) = np.unique(np.asarray(Image.open(path)))
        found[path.relative_to(output / "labels").as_posix()] = STORED.index(shade)
    return found


def _written() -> list[str]:
    return sorted(str(path) for path in Path("out").rglob("*") if path.is_file() and path.name != "PROVENANCE")


def test_one_kind_needs_no_brackets(run: Run) -> None:
    write_shade(Path("in/a.png"), 1)
    assert run(save="labels") == {"a.png": 1}
    assert _written() == ["out/labels/a.png"]
    with pytest.raises(UserError, match="save=label: no such picture; did you mean labels"):
        run(save="label")


def test_an_existing_name_with_brackets_is_that_file(run: Run) -> None:
    write_shade(Path("photo [1].jpg"), 2)
    write_shade(Path("photo 1.jpg"), 0)
    write_shade(Path("one [a]/x*.png"), 1)
    assert run(input="photo [1].jpg") == {"photo [1].png": 2}
    assert run(input="one [a]/x*.png", output="b") == {"x*.png": 1}
    assert run(input="one [a]", output="c") == {"x*.png": 1}
    assert run(input="photo [[]1].jpg", output="d") == {"photo [1].png": 2}
    assert run(input="photo*.jpg", output="e") == {"photo 1.png": 0, "photo [1].png": 2}
    assert run(input="**/*.*g", output="f") == {"one [a]/x*.png": 1, "photo 1.png": 0, "photo [1].png": 2}


@pytest.mark.parametrize("output", ["in/out", "in", "in/deep/out", "in/link/out"])
def test_own_outputs_are_not_labelled_again(run: Run, output: str) -> None:
    write_shade(Path("in/a.png"), 1)
    Path("elsewhere").mkdir()
    Path("in/link").symlink_to("../elsewhere")
    keys = {"output": output, "save": ["labels", "colors", "overlays"]}
    for overwrite in (False, True, False):
        assert run(**keys, overwrite=overwrite) == {"a.png": 1}
    assert run(input="in/**/*.png", output=output, overwrite=True) == {"a.png": 1}
    assert run(output="in/other") == {"a.png": 1}, "outputs of an earlier run with another output="
    assert run(output="outside") == {"a.png": 1}


def test_images_beside_outputs_are_labelled(run: Run) -> None:
    write_shade(Path("in/out/b.png"), 1)
    write_shade(Path("in/labels/c.png"), 2)
    assert run(output="in/out") == {"labels/c.png": 2, "out/b.png": 1}
    assert run(input="in/out/labels", output="again", overwrite=True) == {"labels/c.png": 2, "out/b.png": 1}


def test_hidden_files_and_what_is_no_file_are_left_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_shade(Path("in/a.png"), 1)
    for hidden in ("._a.jpg", ".thumbnails/a.png", "__MACOSX/._a.jpg", "@eaDir/a.png", "Thumbs.db"):
        Path("in", hidden).parent.mkdir(exist_ok=True)
        Path("in", hidden).write_bytes(b"\x00\x05\x16\x07Mac OS X")
    os.mkfifo("in/fifo.png")
    Path("in/folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("in/socket.jpg")
        assert run() == {"a.png": 1}
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(":")[1].split(",")[0] for note in notes] == [
        " in/fifo.png is a FIFO",
        " in/folder.png is a folder",
        " in/socket.jpg is a socket",
    ]


def test_links_are_followed_once(run: Run) -> None:
    write_shade(Path("elsewhere/b.png"), 2)
    write_shade(Path("in/a.png"), 1)
    Path("in/link").symlink_to("../elsewhere")
    Path("elsewhere/back").symlink_to("../in")
    assert run() == {"a.png": 1, "link/b.png": 2}


def test_a_name_of_255_bytes(run: Run) -> None:
    write_shade(Path("in/" + "x" * 251 + ".jpg"), 1)
    write_shade(Path("in/zz.jpg"), 2)
    with pytest.raises(
        UserError, match=r"^1 of 2 images were not labelled: .*x\.json cannot be written \(File name too"
    ):
        run(save=["labels", "segments"])
    assert run() == {"x" * 251 + ".png": 1, "zz.png": 2}


def test_any_failure_of_one_image_leaves_the_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {
        20: MemoryError(),
        21: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9\nbytes"),
        22: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        23: ZeroDivisionError("odd"),
    }

    class Failing(FakePredictor):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            if len(image) in errors:
                raise errors[len(image)]
            return super().__call__(image)

    monkeypatch.setattr(predicting, "Predictor", Failing)
    for size in (19, *errors, 24):
        write_shade(Path(f"in/{size}.png"), 1, (8, size))
    Path("in/broken.webp").write_bytes(b"RIFF")
    with pytest.raises(UserError) as raised:
        run()
    start, *lines = str(raised.value).split("; ")
    assert start.startswith("5 of 7 images were not labelled: in/20.png does not fit into memory (MemoryError): shrink")
    assert [line.split(" (")[0] for line in lines] == [
        "in/21.png does not fit into memory",
        "in/22.png does not fit into memory",
        "in/23.png could not be labelled",
        "in/broken.webp cannot be read as an image",
    ]
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ in errors.values()
    assert _labels(Path("out")) == {"19.png": 1, "24.png": 1}


def test_of_a_thousand_failures_the_first_are_named(run: Run) -> None:
    Path("in").mkdir()
    for i in range(1000):
        Path(f"in/{i:04d}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^1000 of 1000 images were not .*in/0019\.png [^;]*; and 980 more$") as raised:
        run()
    assert len(str(raised.value)) < 4000
    assert not Path("out").exists()


@contextmanager
def _limited(kind: int, limit: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@pytest.mark.slow
def test_one_image_too_large_for_the_memory_is_named(run: Run) -> None:
    for name, size in (("a", 16), ("large", 6000), ("z", 16)):
        write_shade(Path(f"in/{name}.png"), 1, (size, size))
    run(input="in/a.png", output="first")  # all that is imported is
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    line = r"^1 of 3 images were not labelled: in/large\.png does not fit into memory"
    with _limited(resource.RLIMIT_AS, taken + 2**26), pytest.raises(UserError, match=line):
        run()
    assert _labels(Path("out")) == {"a.png": 1, "z.png": 1}


@pytest.mark.parametrize("kind", ["labels", "colors", "overlays", "segments", "probabilities"])
@pytest.mark.parametrize("moving", [False, True])
def test_a_file_that_the_disk_does_not_take_is_named_and_not_left(run: Run, kind: str, moving: bool) -> None:
    if moving and kind in ("segments", "probabilities"):
        pytest.skip("not of videos")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Path("in").mkdir()
    if moving:
        write_video(Path("in/large.mp4"), [np.roll(noise, i) for i in range(4)])
    else:
        Image.fromarray(noise).save("in/large.bmp")
    write_shade(Path("in/small.png"), 1, (2, 2))
    line = rf"^1 of 2 images.*: out/{kind}/large\.\w+ cannot be written \(File too large"
    with _limited(resource.RLIMIT_FSIZE, 4096), pytest.raises(UserError, match=line):
        run(save=[kind])
    (only,) = _written()
    assert Path(only).stem == "small"
    Path(only).unlink()
    with _limited(resource.RLIMIT_FSIZE, 4096), pytest.raises(UserError, match=r"^1 of 1 images were not labelled"):
        run(save=[kind], input=f"in/large.{'mp4' if moving else 'bmp'}")
    assert not Path("out", kind).exists(), "an empty folder"


def test_a_full_disk_ends_in_one_line_and_the_rest_is_done_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write_shade(Path(f"in/{name}.png"), 2)
    flushed = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name == ".b.png":
            raise OSError(28, "No space left on device")
        flushed(descriptor)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(
            UserError, match=r"^out/labels/b\.png cannot .* \(1 of 3 images are done; run the same comm"
        ):
            run()
    assert _written() == ["out/labels/a.png"]
    assert run() == {"a.png": 2, "b.png": 2, "c.png": 2}


@pytest.mark.parametrize("output", ["file", "file/out", "/proc/nothing/out", "x" * 300, "o/" * 2500])
def test_an_output_that_takes_no_file_is_refused_before_the_network_is_built(run: Run, output: str) -> None:
    Path("file").write_text("kept")
    write_shade(Path("in/a.png"), 1)
    before, made = sorted(os.listdir()), FakePredictor.made
    with pytest.raises(
        UserError, match=r"labels/a\.png cannot be written \(.+\): check permissions and free space, or write elsewhere"
    ):
        run(output=output)
    assert FakePredictor.made == made
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("key", "value", "line"), [("save", [], r"save=\[\] writes nothing"), ("frames", 0, "frames=0")]
)
def test_values_that_label_nothing_are_refused(run: Run, key: str, value: Any, line: str) -> None:
    write_shade(Path("in/a.png"), 1)
    with pytest.raises(UserError, match=line):
        run(**{key: value})
    assert not Path("out").exists()


class Inverse(FakePredictor):
    """Another network: it labels light as dark."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return 2 - super().__call__(image)


def test_labels_of_another_network_are_not_taken_for_this_ones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shade(Path("in/a.png"), 0)
    write_shade(Path("in/b.png"), 0)
    assert run() == {"a.png": 0, "b.png": 0}
    record = json.loads(Path("out/PROVENANCE").read_text())
    assert (record["checkpoint"], record["precision"], record["inputs"]) == (
        "net.ckpt",
        "32-true",
        [os.path.abspath("in")],
    )
    Path("moved.ckpt").write_text("weights")
    assert run(checkpoint="moved.ckpt") == {"a.png": 0, "b.png": 0}
    Path("net.ckpt").write_text("other weights")
    monkeypatch.setattr(predicting, "Predictor", Inverse)
    for keys in ({}, {"input": "in/b.png"}, {"save": ["colors"]}):
        with pytest.raises(UserError, match=r"^out has labels of another network \(sha256: .*overwrite=true$"):
            run(**keys)
    with pytest.raises(UserError, match="precision: was 32-true, is 16-mixed"):
        run(precision="16-mixed")
    assert run(input="in/a.png", overwrite=True) == {"a.png": 2, "b.png": 0}
    assert run() == {"a.png": 2, "b.png": 2}, "b.png was still the first network's"
    made = FakePredictor.made
    assert run() == {"a.png": 2, "b.png": 2}
    assert FakePredictor.made == made, "nothing was left to do"


def test_labels_of_another_image_of_the_same_name_are_not_kept(run: Run) -> None:
    write_shade(Path("in/a.png"), 0)
    write_shade(Path("other/a.png"), 2)
    write_shade(Path("other/b.png"), 2)
    run()
    assert run(input="other/b*") == {"a.png": 0, "b.png": 2}
    since = Path("out/PROVENANCE").stat().st_mtime_ns
    Path("out/labels/b.png").unlink()
    assert run(input="other/b.png") == {"a.png": 0, "b.png": 2}
    Path("third").mkdir()
    write_shade(Path("third/a.png"), 1)
    with pytest.raises(UserError, match=r"^out/labels/a\.png belongs to an image in .*/in, .*/other, not in .*/third:"):
        run(input="third")
    assert Path("out/PROVENANCE").stat().st_mtime_ns == since
    assert run(input="third", overwrite=True) == {"a.png": 1, "b.png": 2}


def test_two_at_once_share_a_folder_or_the_second_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shade(Path("in/a.png"), 0)
    write_shade(Path("in/b.png"), 2)
    write_shade(Path("other/a.png"), 1)
    Path("other.ckpt").write_text("other weights")
    told: list[str] = []

    class Second(FakePredictor):
        """While the first one labels its first image, others begin in the same folder."""

        def __call__(self, image: np.ndarray) -> np.ndarray:
            with monkeypatch.context() as inner:
                inner.setattr(predicting, "Predictor", FakePredictor)
                assert run() == {"a.png": 0, "b.png": 2}
                for keys in ({"input": "other", "overwrite": True}, {"checkpoint": "other.ckpt"}, {"input": "other"}):
                    with pytest.raises(UserError) as refused:
                        run(**keys)
                    told.append(str(refused.value))
            return super().__call__(image)

    monkeypatch.setattr(predicting, "Predictor", Second)
    assert run() == {"a.png": 0, "b.png": 2}
    for line, start in zip(
        told, ["another process is writing to out", "out has labels", "out/labels/a.png belongs"] * 2, strict=True
    ):
        assert line.startswith(start)


def test_one_that_fails_leaves_the_folder_of_another_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shade(Path("in/a.png"), 0)
    Path("in/b.png").write_bytes(b"")

    class First(FakePredictor):
        def __init__(self, checkpoint: str, *options: object, **more: object) -> None:
            with monkeypatch.context() as inner:
                inner.setattr(predicting, "Predictor", FakePredictor)
                with pytest.raises(UserError, match="1 of 1 images were not labelled"):
                    run(input="in/b.png")
            assert os.listdir("out") == ["PROVENANCE"]

    monkeypatch.setattr(predicting, "Predictor", First)
    assert run(input="in/a*") == {"a.png": 0}
    assert Path("out/PROVENANCE").is_file()


def test_labels_of_unknown_origin_are_kept_and_said(run: Run) -> None:
    write_shade(Path("in/a.png"), 0)
    write_shade(Path("out/labels/a.png"), 2)
    kept = Path("out/labels/a.png").read_bytes()
    with pytest.raises(UserError, match=r"^out/labels/a\.png exists, and no PROVENANCE in out says which"):
        run(save=["labels", "colors"])
    assert Path("out/labels/a.png").read_bytes() == kept
    assert run(overwrite=True) == {"a.png": 0}
    for garbage in ("", "[]", "{}", '{"inputs": 3}', "\xff"):
        Path("out/PROVENANCE").write_text(garbage, encoding="latin-1")
        with pytest.raises(UserError, match=r"out/PROVENANCE cannot be read"):
            run()


def test_videos_whose_times_are_broken_are_labelled(run: Run) -> None:
    frames = [np.full((48, 64, 3), 250, np.uint8)] * 12
    Path("in").mkdir()
    write_video(Path("in/b.avi"), frames, rate=25)
    write_video(Path("in/part.mpg"), frames, rate=25, codecs=("mpeg2video", ""))
    Path("in/joined.mpg").write_bytes(Path("in/part.mpg").read_bytes() * 2)
    write_shade(Path("in/a.png"), 1)
    write_shade(Path("in/z [1].png"), 1)
    Path("in/part.mpg").rename("in/[end].mpg")
    assert run(save=["labels", "overlays"]) == {"a.png": 1, "z [1].png": 1}
    for name, count in (("b", 12), ("joined", 24), ("[end]", 12)):
        for kind, suffix in (("labels", "mkv"), ("overlays", "mp4")):
            with av.open(f"file:out/{kind}/{name}.{suffix}") as stored:
                times = [frame.time for frame in stored.decode(video=0)]
            assert len(times) == count, (name, kind)
            assert np.all(np.diff(times) > 0), (name, kind)
        with av.open(f"file:out/labels/{name}.mkv") as stored:
            assert {x for f in stored.decode(video=0) for x in np.unique(f.to_ndarray(format="gray"))} == {250}


@pytest.mark.slow
def test_a_video_that_changes_its_size_is_refused_and_the_rest_done(run: Run) -> None:
    Path("in").mkdir()
    for name, size in (("wide", (48, 64)), ("high", (64, 48))):
        write_video(Path(f"{name}.ts"), [np.full((*size, 3), 250, np.uint8)] * 5, rate=25)
    Path("in/turned.mpg").write_bytes(Path("wide.ts").read_bytes() + Path("high.ts").read_bytes())
    write_shade(Path("in/z.png"), 1)
    with pytest.raises(UserError, match=r"^1 of 2 .*: in/turned\.mpg changes its size from 64x48 to 48x64 at frame 6"):
        run(save=["labels", "colors", "overlays"])
    assert _written() == [f"out/{kind}/z.png" for kind in ("colors", "labels", "overlays")]


def test_other_frames_of_a_video_are_not_taken_for_these(run: Run) -> None:
    Path("in").mkdir()
    write_video(Path("in/a.mp4"), [np.full((48, 64, 3), 250, np.uint8)] * 4)
    run(frames=1)
    with pytest.raises(UserError, match="frames: was 1, is None"):
        run(frames=None)
