"""The page that a command prints for `--help`, and for a command line that lacks values."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.errors import ConfigCompositionException
from omegaconf import MISSING

from fastfcn_pl.config.option_files import Group, OptionFiles
from fastfcn_pl.config.plain_data import read_yaml
from fastfcn_pl.config.schema import STUDIES_DIR
from fastfcn_pl.config.yaml_comments import CommentedKey
from fastfcn_pl.engine import usage

_INDENT, _COLUMN, _MAX_WIDTH = "  ", 34, 120
_RECIPES = "model"
"""The group whose options are whole networks."""
_OF_STUDIES = ("question", "published")


def page(command: str, arguments: list[str]) -> str:
    """Return purpose, example, keys, groups, recipes and studies of a command, with what `arguments` choose."""
    parsed = get_args_parser().parse_args(arguments)
    name, folder = parsed.config_name or command, parsed.config_dir
    try:
        files = OptionFiles(name, folder, parsed.overrides)
        groups = files.groups()
    except ConfigCompositionException:  # another group follows one that is not chosen
        files = OptionFiles(name, folder, [*_groups_of_example(command), *parsed.overrides])
        groups = {k: Group(None, group.options, {}) for k, group in files.groups().items() if "/" not in k}
    own = files.own_keys()
    example = usage.line(command)
    sections = [
        f"{command}: {usage.COMMANDS[command].purpose}",
        f"{_INDENT}{example}",
        _section("Keys (key=value)", _key_lines(own)),
        _section(
            "Groups of options (group=option) and the keys of the chosen one",
            [line for name, group in groups.items() for line in _group_lines(name, group, own)],
        ),
    ]
    if _RECIPES in groups:
        recipes = {name: files.header(f"{_RECIPES}/{name}") for name in groups[_RECIPES].options}
        sections.append(_section("Recipes (model=<name>)", _rows(recipes)))
    studies = _studies(command, [STUDIES_DIR, *([Path(parsed.config_dir)] if parsed.config_dir else [])])
    sections.append(_section("Studies (-cn <name>)", _rows(studies)))
    others = {"--cfg job": "show the configuration, do not run", "--hydra-help": "flags of Hydra"}
    if groups:
        others = {
            "-m group=one,other": "a sweep: one job for each value",
            "-cd my_conf": "a folder with options of your own",
            "group=option --help": "the keys of another option",
            **others,
        }
    sections.append(_section("Flags", _rows(others)))
    return "\n\n".join(filter(None, sections))


def explains(error: Exception) -> bool:
    """Tell whether the page helps with an error: a value or an option of a group is missing."""
    return isinstance(error, usage.MissingValueError) or str(error).startswith("You must specify '")


def _groups_of_example(command: str) -> list[str]:
    return [word for word in usage.COMMANDS[command].example.split() if word.startswith("data=")]


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def _group_lines(name: str, group: Group, own: Mapping[str, CommentedKey]) -> list[str]:
    """Return the options of a group, and the keys of the chosen one except for those that the command itself names."""
    package = name.replace("/", ".")
    named_by_command = len(group.options) == 1 and any(key.startswith(f"{package}.") for key in own)
    keys = {} if named_by_command else {k: v for k, v in group.keys.items() if k not in own}
    if len(group.options) == 1 and not keys:
        return []
    others = [option for option in group.options if option != group.chosen]
    options = "; or ".join(filter(None, [group.chosen, ", ".join(others)])) if name != _RECIPES else "see Recipes"
    lines = textwrap.wrap(f"{name}: {options}", _width(), initial_indent=_INDENT, subsequent_indent=_INDENT * 4)
    return [*lines, *(f"{_INDENT}{line}" for line in _key_lines(keys))]


def _key_lines(keys: Mapping[str, CommentedKey]) -> list[str]:
    """Return a line for each key with a meaning, and one for all keys without."""
    shown = {name: key for name, key in keys.items() if name.split(".")[0] not in _OF_STUDIES}
    in_order = sorted(shown, key=lambda name: shown[name].value != MISSING)
    texts = {name: f"{name}={shown[name].value}" if shown[name].value else name for name in in_order}
    lines = _rows({texts[name]: shown[name].meaning for name in in_order if shown[name].meaning})
    rest = ", ".join(texts[name] for name in in_order if shown[name].value and not shown[name].meaning)
    wrapping = textwrap.TextWrapper(
        _width(), initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )
    return lines + wrapping.wrap(rest)


def _rows(rows: Mapping[str, str]) -> list[str]:
    """Return lines with a name on the left and its wrapped meaning on the right."""
    lines: list[str] = []
    for name, meaning in rows.items():
        wrapped = textwrap.wrap(meaning, _width() - _COLUMN - len(_INDENT), break_on_hyphens=False) or [""]
        if len(name) >= _COLUMN - 1:
            lines.append(f"{_INDENT}{name}")
        else:
            lines.append(f"{_INDENT}{name:<{_COLUMN}}{wrapped.pop(0)}".rstrip())
        lines += [f"{_INDENT}{'':{_COLUMN}}{line}" for line in wrapped]
    return lines


def _studies(command: str, folders: Iterable[Path]) -> dict[str, str]:
    """Return the first sentence of the question of each study that the command runs."""
    contents = {path.stem: read_yaml(path) for folder in folders for path in sorted(folder.glob("*.yaml"))}
    studies = {name: content for name, content in contents.items() if isinstance(content, dict)}

    def command_of(name: str) -> str:
        defaults = studies.get(name, {}).get("defaults") or ()
        bases = [base for base in defaults if isinstance(base, str) and (base in studies or base in usage.COMMANDS)]
        return command_of(bases[0]) if bases and name not in usage.COMMANDS else name

    return {
        name: str(content.get("question", "")).strip().partition("? ")[0].rstrip("?") + "?"
        for name, content in studies.items()
        if command_of(name) == command
    }


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, _MAX_WIDTH)
