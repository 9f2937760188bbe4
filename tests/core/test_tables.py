"""Tables as Markdown, CSV and on a terminal."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fastfcn_pl.core.tables import markdown_table, print_table, write_csv


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert markdown_table(["a|b", "n"], [["x|y", "1"]]) == "| a\\|b | n |\n| --- | ---: |\n| x\\|y | 1 |"


def test_numeric_columns_are_aligned_to_the_right() -> None:
    assert markdown_table(["n", "name"], [], [True, False]).splitlines()[1] == "| ---: | --- |"


def test_a_csv_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_csv(path, ["name", "value"], [['a "b", c', None], ["line\nbreak", 2]])
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "value"], ['a "b", c', ""], ["line\nbreak", "2"]]


def test_brackets_in_a_cell_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["file"], [["[red]a.png"]])
    assert "[red]a.png" in capsys.readouterr().out
