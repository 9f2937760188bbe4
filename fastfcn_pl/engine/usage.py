"""Commands: a line about each, an example, and what one of them still wants to be told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastfcn_pl import __version__
from fastfcn_pl.core.program_name import MODULE, as_called
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
    "export": Usage("write a network to a file of ONNX, OpenVINO, ExecuTorch or PyTorch", f"{_BEST} format=onnx"),
    "convert": Usage(
        "turn a published checkpoint into one of ours", "source=encnet_jpu.pth.tar output=encnet_jpu.ckpt"
    ),
    "benchmark": Usage("measure latency, memory and size of a network", "model/neck=jpu size=[512,512]"),
    "report": Usage("write a page about runs", "runs/<run> output=pages"),
    "dashboard": Usage("save a view of a W&B project", "<entity>/<project>"),
    "prepare": Usage("download a data set, or draw annotations as masks", "data=camvid data.root=data/CamVid"),
    "doctor": Usage("check a data set for mistakes", "data=camvid data.root=data/CamVid"),
}


def line(command: str) -> str:
    """Return an example of a command as it is typed."""
    return as_called(f"{MODULE}{command} {COMMANDS[command].example}")


def listing() -> str:
    """Return the page that `fastfcn` and `python -m fastfcn_pl` print."""
    rows = [f"  {name:<11}{usage.purpose}\n{'':13}{line(name)}" for name, usage in COMMANDS.items()]
    return "\n".join(
        [
            as_called(f"usage: {MODULE}<command> [group=option ...] [key=value ...]"),
            "",
            *rows,
            "",
            as_called(f"{MODULE}<command> --help lists its groups, options and keys."),
            as_called(f'eval "$({MODULE}train -sc install=bash)" completes them on Tab in bash, for all commands.'),
        ]
    )


def answer(arguments: Sequence[str]) -> str | None:
    """Return the answer to a question that any command is asked, for its version or for completion; else None."""
    if "--version" in arguments:
        return f"fastfcn_pl {__version__}"
    if re.fullmatch(r"(-sc|--shell-completion|--shell_completion)[ =]install=bash", " ".join(arguments)):
        return _COMPLETION
    return None


_COMPLETION = """\
_fastfcn_pl() {
  local line="${COMP_LINE:0:COMP_POINT}" words word="" count
  read -ra words <<< "$line"
  [[ "$line" == *" " ]] || { word="${words[-1]}"; unset "words[-1]"; }
  case "${words[*]:0:3}" in
    fastfcn* | */fastfcn*) count=2 ;;
    *python*" -m fastfcn_pl."*) count=3 ;;
    *python*" -m fastfcn_pl") count=4 ;;
    *) return ;;
  esac
  line="fastfcn ${words[*]:count} $word"
  COMPREPLY=($(compgen -W "$(COMP_LINE="$line" "${words[@]:0:count}" -sc query=bash 2> /dev/null)" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _fastfcn_pl fastfcn python python3"""
"""Bash function that asks a command for Hydra's completions. Hydra's own function knows scripts, not `python -m`."""


def unknown(command: str) -> str:
    """Return the refusal of a command that does not exist."""
    program = as_called(MODULE).rstrip(". ")
    return f"{command}: no such command; {suggest(command, COMMANDS)}; {program} lists them with examples"


def wanted(command: str, keys: Sequence[str]) -> str:
    """Return the message for a command that lacks the values of `keys`."""
    example = f", for example: {line(command)}" if command in COMMANDS else ""
    return f"{command} needs {' and '.join(f'{key}=...' for key in keys)}{example}"
