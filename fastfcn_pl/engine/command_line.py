"""The words of a command line: Hydra's flags, and overrides."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.utils import get_args_parser


def overrides_first(arguments: Sequence[str]) -> list[str]:
    """Return the words with all overrides before all flags, since Hydra's parser takes overrides in one place only."""
    actions = get_args_parser()._option_string_actions
    overrides: list[str] = []
    flags: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        action = actions.get(word)
        takes_next = action is not None and (action.nargs is None or (action.nargs == "?" and action.choices))
        if action is not None and takes_next and words and (action.choices is None or words[0] in action.choices):
            flags.append(words.pop(0))
    return overrides + flags


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Tell whether a command line asks for the help page of the command."""
    return "--help" in arguments or "-h" in arguments
