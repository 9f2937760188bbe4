"""Messages of Lightning that say nothing about a run of ours, or what our tables say."""

from __future__ import annotations

import logging
import warnings

_WARNINGS = (
    r".*treespec, LeafSpec.*",  # a deprecation inside Lightning
    r"(?s).*Checkpoint directory .* exists and is not empty",  # of a resumed run
    r".*your dataloader is not resumable.*",  # our sampler is
    r".*module\(s\) in eval mode at the start of training.*",  # frozen norms
    r".*smaller than the logging interval.*",  # the interval spans epochs
    r".*sync_dist=True.*",  # scores are computed from all ranks' pixels already
)


def hide() -> None:
    """Hide them. Lightning sets its own level when it is imported, so it has to be imported before."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
