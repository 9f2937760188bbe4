"""Equal cost (`match`): the width of a neck at which its network costs as much as a reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from fastfcn_pl.config.options import compose
from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.engine import hydra_job, startup_messages
from fastfcn_pl.evaluation.formatting import significant

FILE = "match.json"
"""File in a training run's folder with its request, the chosen width and its cost."""
NAMES = {"gmacs": "GMACs", "latency": "latency", "train_memory": "training memory"}
"""Costs that can be matched, as they are called in tables."""
_UNITS = {"gmacs": "GMACs", "latency": "ms", "train_memory": "MiB"}
_KEYS = ("what", "of", "within")
_WIDTH = "model.neck.width"


def solve(cfg: DictConfig) -> None:
    """Set `cfg.model.neck.width` so that the network costs as much as with the options `cfg.match.of`.

    The choice is printed, and becomes `cfg.match.solved`, which other ranks of the run receive and which a checkpoint
    stores. A resumed run takes it from its folder: a latency that is measured again differs. A neck without a width
    keeps its cost, and one that cannot come `within` gets the closest width. Raises UserError if the request is wrong,
    or if a width is given as well.
    """
    if cfg.get("match") is None or (request := _request(cfg)) is None:
        return
    file = Path(cfg.run_dir, FILE)
    if cfg.get("resume") is not None:
        solved = _recorded(file, request)
    else:
        startup_messages.step(f"match: looking for the width with the {NAMES[request['what']]} of {request['of']}")
        solved = _solved(cfg, request)
        if "resume" in cfg:  # it trains
            with atomic_write(file) as hidden:
                hidden.write_text(json.dumps({**request, "solved": solved}, indent=2) + "\n")
    with open_dict(cfg.match):
        cfg.match.solved = solved
    if solved["width"] is not None:
        cfg.model.neck.width = solved["width"]
    startup_messages.step(f"match: {_line(request, solved)}")


def results(cfg: DictConfig) -> dict[str, Any]:
    """Return the entries of a run's results about its equal cost: `match`, and `equal_cost` as a cell of a table.

    They are empty without `match`. Raises UserError if it has not been solved, which only the commands do.
    """
    match = cfg.get("match")
    if match is None or match.what is None:
        return {}
    if "solved" not in match:
        raise UserError("match is solved by `python -m fastfcn_pl.train` and `benchmark`: start one of them")
    record: dict[str, Any] = OmegaConf.to_container(match, resolve=True)  # type: ignore[assignment]
    return {"match": record, "equal_cost": _cell(record["solved"])}


def _request(cfg: DictConfig) -> dict[str, Any] | None:
    """Return the request in `cfg.match` after checking it; None if it asks for nothing."""
    match: Any = OmegaConf.to_container(cfg.match, resolve=True) if OmegaConf.is_dict(cfg.match) else cfg.match
    if not isinstance(match, dict) or not set(_KEYS) <= match.keys():
        raise UserError(f"match={match}: give {', '.join(_KEYS)}, as in {{what:gmacs,of:'model/neck=jpu',within:0.03}}")
    if unknown := [str(key) for key in match if key not in _KEYS]:
        raise UserError(f"match.{unknown[0]}: no such key; {suggest(unknown[0], _KEYS)}")
    if match["what"] is None:
        return None
    if match["what"] not in NAMES:
        raise UserError(f"match.what={match['what']}: no such cost; {suggest(str(match['what']), NAMES)}")
    if not isinstance(match["within"], float) or not 0 < match["within"] < 1:
        raise UserError(f"match.within={match['within']}: give a share between 0 and 1, such as 0.03")
    if not isinstance(match["of"], str) or "=" not in match["of"]:
        raise UserError(f"match.of={match['of']}: give the options of the reference, such as model/neck=jpu_128")
    if given := [override for override in hydra_job.overrides() if _key(override) == _WIDTH]:
        raise UserError(f"match chooses {_WIDTH}, so {given[0]} cannot be set as well: leave out one of them")
    if "resume" not in cfg and cfg.checkpoint is not None:
        raise UserError("match chooses the width of a new network, and checkpoint= has one: leave out one of them")
    return dict(match)


def _key(override: str) -> str:
    """Return the dotted key that an override sets; that of an option is where the option belongs."""
    return hydra_job.override_key(override).replace("/", ".")


def _recorded(file: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the resumed run chose when it started."""
    try:
        record = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): restore it, or start a new run") from error
    solved: dict[str, Any] = record.pop("solved", {})
    if record != request:
        started = f"match={record}" if record else "no match"
        raise UserError(f"the run started with {started} ({file}), and keeps its width: resume it with the same match")
    return solved


def _solved(cfg: DictConfig, request: dict[str, Any]) -> dict[str, Any]:
    """Return the width of the neck, None if it has none, with its cost, the reference's and their ratio."""
    from fastfcn_pl.engine.equal_cost import choose  # imports PyTorch, which a command without `match` does later

    replaced = [_key(option) for option in request["of"].split()]
    kept = [o for o in hydra_job.overrides() if not any(f"{_key(o)}.".startswith(f"{key}.") for key in replaced)]
    reference = compose(str(HydraConfig.get().job.config_name), [*kept, *request["of"].split()])
    own, other = (OmegaConf.to_container(network.model, resolve=True) for network in (cfg, reference))
    choice = choose(cfg, own, other, request["what"])  # type: ignore[arg-type]
    return {**vars(choice), "reached": abs(choice.ratio - 1) <= request["within"]}


def _line(request: dict[str, Any], solved: dict[str, Any]) -> str:
    """Describe the choice in one line."""
    neck = hydra_job.choices().get("model/neck", "the neck")
    width = "no width" if solved["width"] is None else f"width {solved['width']}"
    costs = f"{significant(solved['cost'], 4)} {_UNITS[request['what']]}, {solved['ratio']:.3f} times {request['of']}"
    remark = "" if solved["reached"] else f", not within {request['within']:g}"
    closest = " (the closest)" if solved["width"] is not None and not solved["reached"] else ""
    return f"{neck} with {width}{closest}: {costs}{remark}"


def _cell(solved: dict[str, Any]) -> str:
    if solved["width"] is None:
        return f"no width ({solved['ratio']:.3f}x)"
    return f"width {solved['width']} ({solved['ratio']:.3f}x{'' if solved['reached'] else ', the closest'})"
