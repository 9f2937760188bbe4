"""Write the page on the families of timm: which run as backbones, by which option, and why others are refused.

python -m tests.benchmarks.timm_families experiments/timm_families.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import timm

from fastfcn_pl.core.tables import markdown_table
from tests.support.timm_families import Outcome, outcome


def main(page: str, families: Sequence[str] = ()) -> str:
    """Write the page for all families, or for some, and return its text."""
    outcomes = {family: outcome(family) for family in families or timm.list_modules()}
    text = page_text(outcomes)
    Path(page).write_text(text)
    return text


def page_text(outcomes: dict[str, Outcome]) -> str:
    running = {family: result for family, result in outcomes.items() if result.option}
    refused = {family: result for family, result in outcomes.items() if not result.option}
    pyramids = sum(result.option == "vit_pyramid" for result in running.values())
    untrained = {family: result for family, result in running.items() if result.untrained}
    about = (
        f"One small network of each of the {len(outcomes)} families of timm {timm.__version__} trains for a step on "
        f"two images of 97x129: {len(running)} run, {pyramids} of them by `model/backbone=vit_pyramid`, and "
        f"{len(refused)} are refused. A network that takes squares of one size only sees images as tiles of it."
    )
    rows = [
        [family, f"`{result.name}`", result.option, ", ".join(map(str, result.strides)), str(result.tile or "")]
        for family, result in running.items()
    ]
    parts = [
        f"# Families of timm as backbones\n\n`python -m tests.benchmarks.timm_families <page>`\n\n{about}",
        f"## Run\n\n{markdown_table(['family', 'network', 'option', 'strides', 'tile'], rows)}",
    ]
    if untrained:
        without = [
            [family, f"`{result.name}`", str(len(result.untrained)), f"`{result.untrained[0]}`"]
            for family, result in untrained.items()
        ]
        table = markdown_table(["family", "network", "weights", "the first"], without)
        note = "Training freezes weights that no level depends on, and says so."
        parts.append(f"## Weights without a gradient\n\n{note}\n\n{table}")
    reasons = [[family, f"`{result.name}`", result.reason] for family, result in refused.items()]
    parts.append(f"## Refused\n\n{markdown_table(['family', 'network', 'reason'], reasons)}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:2])
