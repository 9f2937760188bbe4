"""Diagnostics of several ranks (CPU, gloo) equal those of one, to the last bit."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from fastfcn_pl.config import build
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostics
from tests.conftest import composed
from tests.fakes.masks import CLASSES, batches


def _diagnostics() -> Diagnostics:
    cfg = composed("diagnostics=all", "diagnostics.stride_ceiling.fit_steps=2")
    diagnostics = build.diagnostics(cfg, CLASSES)
    assert diagnostics is not None
    return diagnostics


def _rank(rank: int, shares: list[slice], store: Path, found: Any) -> None:
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=len(shares))
    diagnostics = _diagnostics()
    for batch in list(batches())[shares[rank]]:
        diagnostics.update(*batch)
    found.put((rank, {name: findings._asdict() for name, findings in diagnostics.compute().items()}))
    dist.barrier()


@pytest.mark.slow
def test_uneven_ranks_of_which_one_has_no_image_find_the_same(tmp_path: Path) -> None:
    alone = _diagnostics()
    for batch in batches():
        alone.update(*batch)
    context = multiprocessing.get_context("fork")
    found, shares = context.Queue(), [slice(0, None, 2), slice(1, None, 2), slice(0)]
    ranks = [context.Process(target=_rank, args=(i, shares, tmp_path / "store", found)) for i in range(3)]
    for rank in ranks:
        rank.start()
    results = dict(found.get(timeout=60) for _ in ranks)
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    one = {name: findings._asdict() for name, findings in alone.compute().items()}
    assert len(one) == 6
    for rank in range(3):
        np.testing.assert_equal(results[rank], one)


@pytest.mark.slow
def test_a_second_score_starts_from_nothing() -> None:
    diagnostics = _diagnostics()
    for batch in batches():
        diagnostics.update(*batch)
    first = diagnostics.compute()
    diagnostics.reset()
    for batch in batches():
        diagnostics.update(*batch)
    np.testing.assert_equal(
        {name: f.scores for name, f in diagnostics.compute().items()}, {name: f.scores for name, f in first.items()}
    )
