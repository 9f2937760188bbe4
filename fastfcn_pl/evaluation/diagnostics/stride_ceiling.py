"""Scores that labels keep at a network's stride."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastfcn_pl.core.types import IGNORE, UserError
from fastfcn_pl.evaluation.diagnostics.diagnostic import Diagnostic, Findings
from fastfcn_pl.evaluation.metrics import Scores, confusion
from fastfcn_pl.evaluation.score_map import ScoreMap
from fastfcn_pl.ops.interpolate import interpolation

_REDUCED, _FITTED = "mIoU, reduced", "mIoU, fitted"


class StrideCeiling(Diagnostic):
    """IoU of the labels themselves, reduced to each of `strides` and restored as a network's logits are.

    `reduced` takes the shares of the classes in cells of stride x stride pixels (arXiv 1411.4038, appendix A). It tells
    what averaging loses, which a network can exceed: it may overstate an object that is thinner than a cell. `fitted`
    takes the scores at the stride that restore the labels best, after `fit_steps` steps: the ceiling of any neck.
    """

    matrices: Tensor

    def __init__(self, num_classes: int, *, strides: Sequence[int], fit_steps: int) -> None:
        super().__init__(num_classes)
        if not strides or min(strides) < 1:
            raise UserError(f"diagnostics.stride_ceiling.strides={list(strides)}: give whole numbers from 1 upwards")
        if fit_steps < 0:
            raise UserError(f"diagnostics.stride_ceiling.fit_steps={fit_steps}: give 0 to leave it out, or 40")
        self.strides, self.fit_steps = list(strides), fit_steps
        shape = 2, len(self.strides), num_classes, num_classes  # reduced, fitted
        self.add_state("matrices", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, confidence: Tensor) -> None:
        for labels in target:
            classes = labels[labels != IGNORE].unique().long()
            one_hot = (labels == classes[:, None, None]).float()
            for i, stride in enumerate(self.strides if len(classes) else ()):
                maps = [class_shares(one_hot, stride)]
                if self.fit_steps:
                    with torch.autocast(labels.device.type, enabled=False):
                        maps.append(fit(one_hot, stride, self.fit_steps))
                for matrix, scores in zip(self.matrices[:, i], maps, strict=False):
                    matrix += confusion(classes[restore(scores, labels.shape)], labels, self.num_classes)

    def compute(self) -> Findings:
        names = [f"stride {stride}" for stride in self.strides]
        kinds = [_REDUCED, _FITTED] if self.fit_steps else [_REDUCED]
        scores = {
            kind: dict(zip(names, map(Scores.of, matrices), strict=True))
            for kind, matrices in zip(kinds, self.matrices, strict=False)
        }
        return Findings(
            {kind: {name: s.mean_iou for name, s in of_kind.items()} for kind, of_kind in scores.items()},
            {},
            {
                f"{kind.removeprefix('mIoU, ')} to {name}": s.iou.tolist()
                for kind, of_kind in scores.items()
                for name, s in of_kind.items()
            },
        )


def class_shares(one_hot: Tensor, stride: int) -> Tensor:
    """Return the shares `(K, h, w)` of classes in the labelled pixels of each cell of `one_hot` `(K, H, W)`."""
    size = _reduced_size(one_hot, stride)
    labelled = F.adaptive_avg_pool2d(one_hot.sum(0, keepdim=True), size)
    return F.adaptive_avg_pool2d(one_hot, size) / labelled.clamp(min=1e-9)


def restore(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Return the index `(H, W)` of the highest of `scores` `(K, h, w)` after bilinear interpolation to `size`."""
    return ScoreMap.of(scores[None]).resized((size[0], size[1]), align_corners=False).labels()[0]


def fit(one_hot: Tensor, stride: int, steps: int) -> Tensor:
    """Return scores `(K, h, w)` whose interpolation exceeds all others by 1 at the class of each pixel, if possible.

    Minimises the squared hinge loss of Crammer and Singer (JMLR 2001) over labelled pixels by Nesterov's method, from
    the least-squares fit of `one_hot`. Interpolation is linear, so its pseudo-inverse is the best step.
    """
    rows, columns = (
        interpolation(range(side), reduced, side, False, one_hot.dtype, one_hot.device)[1]
        for side, reduced in zip(one_hot.shape[1:], _reduced_size(one_hot, stride), strict=True)
    )
    to_rows, to_columns = torch.linalg.pinv(rows), torch.linalg.pinv(columns).T
    labelled, own = one_hot.sum(0), one_hot > 0
    scores = ahead = to_rows @ one_hot @ to_columns
    momentum = 1.0
    for _ in range(steps):
        restored = rows @ ahead @ columns.T
        highest, rival = restored.masked_fill(own, -torch.inf).max(0, keepdim=True)
        missing = (highest + 1 - (restored * one_hot).sum(0)).clamp(min=0) * labelled / 2
        change = (one_hot * missing).scatter_add(0, rival, -missing)
        previous, scores = scores, ahead + to_rows @ change @ to_columns
        momentum, last = (1 + (1 + 4 * momentum**2) ** 0.5) / 2, momentum
        ahead = scores + (last - 1) / momentum * (scores - previous)
    return scores


def _reduced_size(one_hot: Tensor, stride: int) -> tuple[int, int]:
    return -(-one_hot.shape[1] // stride), -(-one_hot.shape[2] // stride)
