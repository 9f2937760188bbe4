"""Damaged and malicious folders of runs: the report is a page or one line."""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fastfcn_pl.core.types import UserError
from fastfcn_pl.evaluation.visualize import METADATA_KEY
from fastfcn_pl.tools.report.groups import compare
from fastfcn_pl.tools.report.page import write
from fastfcn_pl.tools.report.runs import find_runs
from tests.fakes.runs import write_benchmark, write_run

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
JSON_FILES = {
    "list": "[]",
    "null": "null",
    "number": "3",
    "text": '"mIoU"',
    "torn": '{"mIoU": 0.5, "IoU": {',
    "empty": "",
    "binary": "\x00\x01\x02",
    "NaN": '{"mIoU": NaN}',
    "a text for a number": '{"mIoU": "NaN"}',
    "a number without end": f'{{"mIoU": {"9" * 5000}}}',
    "too deep": "[" * 100_000,
    "of another version": '{"miou": 0.5, "classes": []}',
}
YAML_FILES = {
    "bomb": BOMB,
    "holds itself": "a: &a [*a]",
    "list": "[]",
    "text": "abc",
    "code": "!!python/object/apply:os.system ['true']",
    "too deep": "[" * 900 + "]" * 900,
    "far too deep": "{a: " * 50_000,
    "binary": "\x00\x07",
    "no keys": "seed: 0",
    "wrong types": "seed: []\ndata: 3\nprotocol: x\ntrainer: null",
}


def _one_line(folder: Path, output: Path) -> str:
    """Return the error message of the report on `folder`."""
    with pytest.raises(UserError) as error:
        write([folder], output)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("content", JSON_FILES.values(), ids=JSON_FILES.keys())
@pytest.mark.parametrize("file", ["results.json", "benchmark.json"])
def test_json_that_is_no_runs_is_one_line(file: str, content: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / file).write_text(content)
    assert _one_line(run, tmp_path).startswith(f"{run / file} ")


@pytest.mark.parametrize("content", YAML_FILES.values(), ids=YAML_FILES.keys())
@pytest.mark.parametrize("file", [".hydra/config.yaml", ".hydra/hydra.yaml", "metrics/hparams.yaml"])
def test_yaml_that_is_no_runs_is_one_line(file: str, content: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", score=None)
    (run / file).write_text(content)
    if file == "metrics/hparams.yaml" and content in (YAML_FILES["no keys"], YAML_FILES["wrong types"]):
        assert write([run], tmp_path)  # nothing of it is needed
    else:
        assert _one_line(run, tmp_path).startswith(f"{run / file} ")


@pytest.mark.parametrize(
    "content", ["step,train/loss\nx,1\n", "step,train/loss\n-3,1\n", "step,val/mIoU\n1,high\n", "step\n\0\n"]
)
def test_metrics_that_are_nonsense_are_one_line(content: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", score=None)
    (run / "metrics" / "metrics.csv").write_text(content)
    assert "metrics.csv" in _one_line(run, tmp_path)


def test_infinite_and_missing_values_are_left_out_of_curves(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", score=None)
    (run / "metrics" / "metrics.csv").write_text("step,train/loss,val/mIoU\n1,inf,\n2,nan,nan\n3,1e300,0.25\n4,2,\n5,3")
    (found,) = find_runs([run])
    assert (found.curve("train/loss"), found.score) == ([(4, 2.0)], 0.25)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "results.json").open("wb") as file:
        file.truncate(2**40)
    assert "more than any run writes" in _one_line(run, tmp_path)


def test_links_that_lead_back_and_pipes_do_not_hold_a_report_up(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs / "a")
    outside = write_run(tmp_path / "elsewhere" / "b")
    (runs / "b").symlink_to(outside)
    (runs / "again").symlink_to(runs)
    (runs / "loop").symlink_to(runs / "loop")
    os.mkfifo(runs / "a" / "benchmark.json")
    os.mkfifo(runs / "a" / "error.txt")
    assert {run.folder.name for run in find_runs([runs])} == {"a", "b"}
    assert write([runs], tmp_path / "pages")


def _overlay(folder: Path, about: str, size: tuple[int, int] = (80, 40)) -> Path:
    text = PngInfo()
    text.add_text(METADATA_KEY, about)
    (folder / "overlays").mkdir(exist_ok=True)
    Image.new("RGB", size).save(folder / "overlays" / "0.png", pnginfo=text)
    return folder / "overlays" / "0.png"


def _huge(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "about",
    [
        "[]",
        '{"height": 3, "colors": {"a": [1, 2, 999]}}',
        "3",
        "{",
        '{"height": "3", "colors": {}}',
        '{"height": -5, "colors": {}}',
        '{"height": 900000, "colors": {}}',
    ]
    + ['{"height": 3, "colors": {"a": ["red;}<script>", 1, 2]}}', '{"height": 3}', "[" * 50_000],
)
def test_overlays_that_say_nonsense_are_one_line(about: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    _overlay(run, about)
    if about == "[]":
        assert write([run], tmp_path)  # it says nothing
    else:
        assert "overlays/0.png" in _one_line(run, tmp_path)


@pytest.mark.slow
def test_overlays_that_are_no_pictures_or_huge_are_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "overlays").mkdir()
    (run / "overlays" / "notes.png").write_text("not numbered: not ours")
    assert write([run], tmp_path)
    picture = run / "overlays" / "7.png"
    picture.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "overlays/7.png" in _one_line(run, tmp_path)
    _huge(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "overlays/7.png" in _one_line(run, tmp_path)


def test_names_are_text_on_both_pages(tmp_path: Path) -> None:
    name = "</pre><script>alert(1)</script> | ![x](http://tracker/) $\\frac$ \x1b[31m `x`"
    for seed in (0, 1):
        run = write_run(
            tmp_path / "runs" / str(seed), overrides=[f"model/neck={name}{seed}"], seed=seed, study="a|<b>[c](d)"
        )
        results = json.loads((run / "results.json").read_text())
        results["IoU"] = results["share"] = {name: 0.5, "other": 0.25}
        results["commit"] = results["processor"] = name
        (run / "results.json").write_text(json.dumps(results))
    html, page = (path.read_text() for path in write([tmp_path / "runs"], tmp_path / "pages"))
    assert "<script>alert" not in html
    prose = "".join(page.split("```")[::2])
    assert "<script>alert" in "".join(page.split("```")[1::2]), "a block of code shows it as it is"
    assert "<script>alert" not in prose
    assert "](http" not in page
    assert "\x1b" not in html + page
    assert all(path.parent == tmp_path / "pages" for path in (tmp_path / "pages").glob("*.*"))


@pytest.mark.slow
def test_a_page_stays_in_its_folder_whatever_a_run_says_it_is_called(tmp_path: Path) -> None:
    for i, study in enumerate(["../../outside", "/tmp/outside", "..", "x" * 300, "a\nb", ""]):
        run = write_run(tmp_path / str(i), study=study)
        output = tmp_path / "deep" / "er" / f"pages{i}"
        for path in write([run], output):
            assert path.resolve().parent == output.resolve()
    assert not (tmp_path / "outside.md").exists()


def test_runs_of_other_classes_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    other = write_run(tmp_path / "runs" / "b", overrides=["data.classes=[sky,road]"])
    results = json.loads((other / "results.json").read_text())
    results |= {"IoU": {"sky": 0.5, "road": 0.25}, "share": {"sky": 0.75, "road": 0.25}}
    (other / "results.json").write_text(json.dumps(results))
    titles = [comparison.title for comparison in compare(find_runs([tmp_path / "runs"]))]
    assert titles == [
        "camvid val, protocol native, classes sky, car, <parked>, a|b",
        "camvid val, protocol native, classes sky, road",
    ]
    page = write([tmp_path / "runs"], tmp_path)[1].read_text()
    assert "| road |" in page


def test_a_mean_over_some_classes_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "absent_classes": ["a|b"]}))
    assert ", over 2 of 3 classes; means leave out classes without pixels" in write([run], tmp_path)[1].read_text()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "NaN", "<script>", "${oc.env:HOME}", "../..", "\0", "$x^$", "1e999"])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _with(content: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(content)
    copy = content.copy()
    copy[path[0]] = _with(content[path[0]], path[1:], change)
    return copy


FILES = ["results.json", "benchmark.json", ".hydra/config.yaml", ".hydra/hydra.yaml", "metrics/hparams.yaml"]


def _fuzz(data: st.DataObject, folder: Path) -> None:
    """Report on two runs and a benchmark after changing one value of one file."""
    finished = data.draw(st.booleans())
    run = write_run(folder / "runs" / "0", score=0.5 if finished else None)
    write_run(folder / "runs" / "1", overrides=["optimizer.lr=0.02"])
    benchmark = write_benchmark(folder / "runs" / "2", model="a", latency_ms=30.0, gmacs=2.0)
    if data.draw(st.booleans()):
        run = benchmark
    file = run / data.draw(st.sampled_from([name for name in FILES if (run / name).is_file()]))
    content = json.loads(file.read_text()) if file.suffix == ".json" else yaml.safe_load(file.read_text())
    path = data.draw(st.sampled_from(list(_places(content))))
    value = data.draw(VALUES)
    spoilt = _with(content, path, lambda _: value)
    file.write_text(json.dumps(spoilt) if file.suffix == ".json" else yaml.safe_dump(spoilt))
    line = ""
    try:
        write([folder / "runs"], folder / "pages")
    except UserError as error:
        line = str(error)
    assert "\n" not in line


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_spoilt_value_anywhere_gives_a_page_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    _fuzz(data, tmp_path_factory.mktemp("spoilt"))


@pytest.mark.exhaustive
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_spoilt_values(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    _fuzz(data, tmp_path_factory.mktemp("spoilt"))
