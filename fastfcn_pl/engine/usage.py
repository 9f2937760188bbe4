"""Commands: a line about each, an example, and what one of them still wants to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastfcn_pl.core.types import UserError, suggest


class MissingValueError(UserError):
    """A command line that lacks values which the command needs."""


@dataclass(frozen=True)
class Usage:
    """A command's purpose and an example of its arguments."""

    purpose: str
    example: str


_BEST = "checkpoint=runs/<run>/checkpoints/best.ckpt"
COMMANDS = {
    "train": Usage("train a network and score its best checkpoint", "-cn quickstart"),
    "evaluate": Usage("score a checkpoint", f"{_BEST} split=val"),
    "predict": Usage("label images and videos", f"{_BEST} input=photos output=labels"),
    "demo": Usage("label images on a local web page", _BEST),
    "export": Usage("write a network to an ONNX or PyTorch file", f"{_BEST} format=onnx"),
    "convert": Usage(
        "turn a published checkpoint into one of ours", "source=encnet_jpu.pth.tar output=encnet_jpu.ckpt"
    ),
    "benchmark": Usage("measure latency, memory and size of a network", "model/neck=jpu size=[512,512]"),
    "report": Usage("write a page about runs", "runs/<run> output=pages"),
    "dashboard": Usage("save a view of a W&B project", "<entity>/<project>"),
    "prepare": Usage("download and unpack a data set", "data=camvid data.root=data/CamVid"),
    "doctor": Usage("check a data set for mistakes", "data=camvid data.root=data/CamVid"),
}


def line(command: str) -> str:
    """Return an example of a command as it is typed."""
    return f"python -m fastfcn_pl.{command} {COMMANDS[command].example}"


def listing() -> str:
    """Return the page that `python -m fastfcn_pl` prints."""
    rows = [f"  {name:<11}{usage.purpose}\n{'':13}{line(name)}" for name, usage in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m fastfcn_pl.<command> [group=option ...] [key=value ...]",
            "",
            *rows,
            "",
            "python -m fastfcn_pl.<command> --help lists its groups, options and keys.",
        ]
    )


def unknown(command: str) -> str:
    """Return the refusal of a command that does not exist."""
    return f"{command}: no such command; {suggest(command, COMMANDS)}; python -m fastfcn_pl lists them with examples"


def wanted(command: str, keys: Sequence[str]) -> str:
    """Return the message for a command that lacks the values of `keys`."""
    example = f", for example: {line(command)}" if command in COMMANDS else ""
    return f"{command} needs {' and '.join(f'{key}=...' for key in keys)}{example}"
