"""`metrics.csv` loses and repeats no row if the process is killed at any moment."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.loggers import MetricsFile
from tests.support.killed import kill_at


def _log(logger: MetricsFile, steps: range) -> None:
    """Log a learning rate and a loss at each step, and a score at each fifth; save at each third."""
    for step in steps:
        logger.log_metrics({"lr": 0.1 * step}, step)
        logger.log_metrics({"loss": 1.0 / (step + 1), "wait": 0.0}, step)
        if step % 5 == 4:
            logger.log_metrics({"mIoU": step / 100}, step)
        if step % 3 == 2:
            logger.save()


def _rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows without their empty columns."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def _ended(work: Callable[[], None]) -> int:
    """Return the exit code of a process that does `work`."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def whole(tmp_path: Path) -> list[dict[str, str]]:
    logger = MetricsFile(folder=str(tmp_path / "whole"))
    _log(logger, range(20))
    logger.log_metrics({"final": 0.5}, 20)
    logger.finalize("success")
    return _rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_kill_at_any_change_of_the_disk_loses_nothing(tmp_path: Path, whole: list[dict[str, str]]) -> None:
    """The kills start with the second session, which resumes at step 12."""
    first, folder = tmp_path / "first", tmp_path / "run"
    logger = MetricsFile(folder=str(first))
    _log(logger, range(14))
    logger.save()

    def go_on() -> None:
        logger = MetricsFile(folder=str(folder))
        logger.experiment.rewind(12)
        _log(logger, range(12, 20))
        logger.log_metrics({"final": 0.5}, 20)
        logger.finalize("success")

    codes = []
    while not codes or codes[-1] != 0:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(first, folder)
        codes.append(_ended(lambda: (kill_at(len(codes) + 1, folder), go_on())))  # type: ignore[func-returns-value]
        assert _rows(folder)[:26] == _rows(first)[:26], f"after a kill at change {len(codes)}"
        go_on()
        assert _rows(folder) == whole, f"after a kill at change {len(codes)}"
    assert codes[-2:] == [-9, 0]
    assert len(codes) == 9


def test_half_of_a_line_is_forgotten(tmp_path: Path, whole: list[dict[str, str]]) -> None:
    logger = MetricsFile(folder=str(tmp_path))
    _log(logger, range(18))
    logger.save()
    file = tmp_path / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-3])
    logger = MetricsFile(folder=str(tmp_path))
    logger.experiment.rewind(15)
    _log(logger, range(15, 20))
    logger.log_metrics({"final": 0.5}, 20)
    logger.save()
    assert _rows(tmp_path) == whole


def test_what_is_logged_twice_stands_once(tmp_path: Path) -> None:
    logger = MetricsFile(folder=str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 7)
    for value in (0.25, 0.5):
        logger.log_metrics({"final": value}, 8)
        logger.save()
        logger.finalize("success")
        assert _rows(tmp_path) == [
            {"step": "7", "loss": "1.0"},
            {"step": "8", "final": str(value)},
        ]


def test_an_interrupted_save_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may end the final scoring, after which Lightning saves once more."""
    logger = MetricsFile(folder=str(tmp_path))
    _log(logger, range(9))
    expected = _rows(tmp_path)
    for name in ("fsync", "replace"):
        logger.log_metrics({"final": 0.5} if name == "fsync" else {"other": 0.5}, 9)
        with monkeypatch.context() as broken:
            broken.setattr(os, name, _interrupt)
            broken.setattr(Path, "replace", _interrupt)
            with pytest.raises(SystemExit):
                logger.save()
        logger.save()
    assert _rows(tmp_path) == [*expected, {"step": "9", "final": "0.5"}, {"step": "9", "other": "0.5"}]


def _interrupt(*_: object) -> None:
    raise SystemExit(143)


def test_columns_that_only_forgotten_rows_had_are_forgotten(tmp_path: Path) -> None:
    logger = MetricsFile(folder=str(tmp_path))
    _log(logger, range(9))
    logger.experiment.rewind(3)
    with (tmp_path / "metrics.csv").open() as file:
        assert file.readline().strip() == "loss,lr,step,wait"
    logger.experiment.rewind(0)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("gone", ["metrics.csv", "."])
def test_a_removed_folder_is_not_made_anew(gone: str, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "metrics"
    logger = MetricsFile(folder=str(folder))
    _log(logger, range(9))
    shutil.rmtree(folder) if gone == "." else (folder / gone).unlink()
    with pytest.raises(UserError, match=r"metrics.csv is gone: a run's folder must not be moved"):
        _log(logger, range(9, 12))
    assert folder.exists() == (gone != ".")


def test_hyper_parameters_are_whole(tmp_path: Path) -> None:
    logger = MetricsFile(folder=str(tmp_path))
    logger.log_hyperparams({"seed": 1})
    child = _ended(lambda: (kill_at(2, tmp_path), logger.log_hyperparams({"facts": "x" * 100})))  # type: ignore[func-returns-value]
    assert child == -9
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text()) == {"seed": 1}
