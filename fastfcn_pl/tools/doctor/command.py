"""Command `doctor`: inspect a data set, and print and write its statistics and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from fastfcn_pl.config import build, validation
from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import UserError
from fastfcn_pl.tools.doctor import rendering
from fastfcn_pl.tools.doctor.findings import findings
from fastfcn_pl.tools.doctor.statistics import inspect
from fastfcn_pl.tools.progress_bar import bar


def doctor(cfg: DictConfig) -> None:
    """Print statistics and findings about the splits of `cfg.data`, and write them to `cfg.output`.

    Raises UserError if training on the data would be wrong.
    """
    if cfg.limit is not None and cfg.limit < 1:
        raise UserError(f"limit={cfg.limit}: give 1 or more images of each split, or null for all")
    if cfg.samples < 0:
        raise UserError(f"samples={cfg.samples}: give a number of pictures, or 0 for none")
    validation.check(cfg)
    data, output = build.build(cfg.data, 0), Path(cfg.output)
    if hasattr(data, "check_root"):
        data.check_root()
    with bar("reading", of_bytes=False) as update:
        splits = inspect(data, cfg.limit, cfg.num_workers, update)
    found = findings(data, splits)
    rendering.show(data, splits, found)
    samples = rendering.picture(data, splits, cfg.samples, cfg.seed)
    written = ["doctor.json"]
    if samples is not None:
        written.append("samples.png")
        with atomic_write(output / "samples.png") as temporary:
            Image.fromarray(samples).save(temporary, format="PNG")
    with atomic_write(output / "doctor.json") as temporary:
        temporary.write_text(json.dumps(rendering.to_dict(data, splits, found), indent=1))
    print(f"wrote {' and '.join(written)} to {output}")
    if faults := sum(finding.level == "fault" for finding in found):
        listed = "fault" if faults == 1 else f"{faults} faults"
        raise UserError(f"training on {data.spec.name} would be wrong: fix the {listed} above and run again")
