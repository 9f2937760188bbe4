"""Reading of runs from their folders, and comparison of runs."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import pytest

from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.report.groups import compare, differences, distinguishing_keys
from fastfcn_pl.tools.report.runs import SILENT_SECONDS, Run, find_runs
from tests.fakes.runs import write_run, write_sweep


def _folders(runs: list[Run]) -> list[str]:
    return [run.folder.name for run in runs]


def test_a_sweep_is_its_jobs_in_their_order(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", ["jpu", "fpn", "none", "dilated"], [0, 1, 2])
    runs = find_runs([tmp_path / "sweep", tmp_path / "sweep" / "3"])
    assert _folders(runs) == [str(i) for i in range(12)]
    command = (
        "python -m fastfcn_pl.train -cd experiments -cn neck_ablation -m model/neck=jpu,fpn,none,dilated seed=0,1,2"
    )
    assert {run.command for run in runs} == {command}


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no run"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_runs([tmp_path / "nowhere"])


def test_a_run_that_goes_on_tells_how_far_it_is_also_with_half_a_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", score=None, steps=20)
    file = run / "metrics" / "metrics.csv"
    file.write_text(file.read_text() + "4,23,0.0")
    (found,) = find_runs([run])
    assert found.state.kind == "running"
    assert "epoch 5 of 10" in found.state.text
    assert found.curve("train/loss")[-1][0] == 19
    assert found.score == 0.3
    assert found.metadata["commit"] == "0123abcd"
    assert found.cost["gmacs"] == 5.0


def test_a_run_that_has_logged_nothing_yet_is_running(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", score=None)
    (run / "metrics" / "metrics.csv").unlink()
    (found,) = find_runs([run])
    assert found.state.text.startswith("running, nothing logged yet")
    assert found.score is None


def test_what_ended_a_run_is_said(tmp_path: Path) -> None:
    failed = write_run(tmp_path / "failed", score=None)
    (failed / "error.txt").write_text("optimizer.lr=9: the loss is not finite\n")
    silent = write_run(tmp_path / "silent", score=None)
    for path in silent.rglob("*"):
        os.utime(path, (time.time() - 2 * SILENT_SECONDS, time.time() - 2 * SILENT_SECONDS))
    killed = write_run(tmp_path / "killed", score=None)
    (killed / ".hydra" / "sweep_job.json").write_text(json.dumps({"status": "failed: exit code -9"}))
    states = {run.folder.name: run.state for run in find_runs([tmp_path])}
    assert states["failed"].text == "failed: optimizer.lr=9: the loss is not finite"
    assert states["silent"].text.startswith("not finished, epoch 10 of 10, no update for 0:3")
    assert states["killed"].text == "failed: exit code -9"


def test_a_benchmark_wins_over_what_training_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", latency_ms=100.0)
    about = {"batch": 1, "size": [512, 512], "device": "a CPU", "precision": "32-true", "threads": 2}
    (run / "benchmark.json").write_text(json.dumps({"latency_ms": 47.0, "gmacs": 5.0, "peak_mib": 90.0, **about}))
    (found,) = find_runs([run])
    assert found.cost["latency_ms"] == 47.0
    assert found.cost["measured"] == "by benchmark, batch 1 of 512x512 on a CPU, 32-true, 2 threads"


def test_runs_that_differ_by_their_seed_are_one_group_with_a_sample_deviation(tmp_path: Path) -> None:
    write_sweep(tmp_path, ["jpu", "fpn"], [0, 1, 2])
    (comparison,) = compare(find_runs([tmp_path]))
    assert [group.name for group in comparison.groups] == ["jpu", "fpn"]
    assert comparison.keys == ["model/neck"]
    score = comparison.groups[0].score
    assert score is not None
    assert (score.n, score.mean) == (3, pytest.approx(0.71))
    assert score.std == pytest.approx(statistics.stdev([0.70, 0.71, 0.72]))


def test_other_data_protocols_or_images_are_never_ranked_together(tmp_path: Path) -> None:
    write_run(tmp_path / "a", score=0.9, data="shapes")
    write_run(tmp_path / "b", score=0.5)
    write_run(tmp_path / "c", score=0.6, images=3)
    other = write_run(tmp_path / "d", score=0.7)
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "protocol": "encoding_ms"}))
    titles = {
        comparison.title: _folders([r for g in comparison.groups for r in g.runs])
        for comparison in compare(find_runs([tmp_path]))
    }
    assert titles == {
        "shapes val, protocol native": ["a"],
        "camvid val, protocol native, 101 images": ["b"],
        "camvid val, protocol native, 3 images": ["c"],
        "camvid val, protocol encoding_ms": ["d"],
    }


def test_a_run_that_goes_on_stands_below_the_finished_ones_of_its_data(tmp_path: Path) -> None:
    write_run(tmp_path / "a", score=0.2, overrides=["optimizer.lr=0.1"])
    write_run(tmp_path / "b", score=None, overrides=["optimizer.lr=0.2"])  # 0.3 so far
    write_run(tmp_path / "c", score=None, data="shapes")
    found = compare(find_runs([tmp_path]))
    assert [[group.name for group in comparison.groups] for comparison in found] == [
        ["lr 0.1", "lr 0.2"],
        ["neck_ablation"],
    ]


def test_names_say_what_tells_apart_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "a", overrides=["model/neck=fpn", "optimizer.lr=0.02", "trainer.max_epochs=3", "data.root=/x"])
    write_run(tmp_path / "b", overrides=["model/neck=jpu", "trainer.max_epochs=3", "data.root=/y"])
    runs = find_runs([tmp_path])
    assert distinguishing_keys(runs) == ["model/neck", "optimizer.lr"]
    assert [run.setting("optimizer.lr") for run in runs] == ["0.02", "0.01"]
    assert differences(runs)["model/neck"] == {"fpn": 1, "jpu": 1}


def test_a_value_in_an_edited_file_tells_apart_where_nothing_else_does(tmp_path: Path) -> None:
    write_run(tmp_path / "a", optimizer={"lr": 0.5})
    write_run(tmp_path / "b")
    assert distinguishing_keys(find_runs([tmp_path])) == ["optimizer.lr"]


def test_published_numbers_stand_beside_the_run_that_they_are_about(tmp_path: Path) -> None:
    rows = [{"run": "model/neck=jpu", "mIoU": 51.05}, {"run": "model/neck=jpu model/head=psp", "mIoU": 50.0}]
    write_run(tmp_path / "a", overrides=["model/neck=jpu"], published=rows)
    write_run(tmp_path / "b", overrides=["model/neck=fpn"], published=rows)
    (comparison,) = compare(find_runs([tmp_path]))
    assert {group.name: group.published for group in comparison.groups} == {"jpu": rows[:1], "fpn": []}


def test_a_typo_in_published_numbers_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", published=[{"run": "", "miou": 51.05}])
    with pytest.raises(UserError, match="neck_ablation: published has no miou; did you mean mIoU"):
        compare(find_runs([tmp_path]))


def test_a_torn_results_file_is_one_line(tmp_path: Path) -> None:
    (write_run(tmp_path / "a") / "results.json").write_text('{"mIoU": ')
    with pytest.raises(UserError, match=r"results\.json cannot be read as JSON"):
        compare(find_runs([tmp_path]))
