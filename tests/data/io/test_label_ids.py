"""Mapping of ids to class indices: a table for 8 bits, a search for more."""

from __future__ import annotations

import numpy as np
import pytest

from fastfcn_pl.core.types import IGNORE, DatasetSpec
from fastfcn_pl.data.io.label_ids import label_table, look_up
from fastfcn_pl.data.io.palette import voc_colors

SPEC = DatasetSpec("two", ("a", "b"), voc_colors(range(2)), {7: 0, 70_000: 1, -9999: IGNORE})


def test_the_table_has_the_ids_of_8_bits_only() -> None:
    table = label_table(SPEC)
    assert (table[7], table.dtype, len(table)) == (0, np.int16, 256)
    assert (np.delete(table, 7) == -1).all()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, ">i4"])
def test_ids_of_any_width_are_found_or_not(dtype: str | type) -> None:
    ids = np.array([[7, 70_000, -9999], [8, 0, 2**31 - 1]], dtype)
    assert look_up(ids, SPEC.labels).tolist() == [[0, 1, IGNORE], [-1, -1, -1]]


def test_table_and_search_agree() -> None:
    for remap in ({}, {0: IGNORE, 255: 1, 3: 0}):
        spec = DatasetSpec("two", SPEC.classes, SPEC.palette, remap)
        assert np.array_equal(label_table(spec), look_up(np.arange(256, dtype=np.uint16), spec.labels))
        assert label_table(spec)[[0, 255]].tolist() == ([IGNORE, 1] if remap else [0, IGNORE])
