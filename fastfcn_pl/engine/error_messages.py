"""One-line messages for errors that the user can fix."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fastfcn_pl.config import schema
from fastfcn_pl.config.unknown_key import no_such_key
from fastfcn_pl.core.atomic_io import DISK_ERRORS, write_error
from fastfcn_pl.core.types import UserError, suggest
from fastfcn_pl.data.workers import explain_worker_failure
from fastfcn_pl.engine import usage
from fastfcn_pl.training.distributed import loss_of_rank

_MAX_NAME = 200
_NAME_CHECKPOINTS = ("checkpoint", "resume", "source")
"""Keys of commands that name a file of weights."""
_NOISE = re.compile(r"full_key|object_type|reference_type|Config search path|provider=")


def one_line(error: BaseException) -> str | None:
    """Return a message in one line for an error that the user can fix, None for any other."""
    chain = [error]
    if "iter(combined_loader)" in str(error) and error.__context__ is not None:  # raised by Lightning's clean-up
        chain = [error.__context__]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, UserError):
            # The error of a worker process arrives as text, with the traceback before the message.
            return _key_as_given(" ".join(str(link).rsplit("UserError: ", 1)[-1].splitlines()).strip())
    for link in chain:
        if message := explain_worker_failure(link) or loss_of_rank(link):
            return message
        if isinstance(link, OSError) and (link.errno in DISK_ERRORS or _makes_a_folder(link)):
            return _disk_message(link)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's UserError
        return _named_flag(" ".join(str(error).split()))
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        text = " ".join(str(chain[-1]).split())
        if type(chain[-1]).__name__ == "MisconfigurationException":
            return _named_flag(text)
        cause = f"{type(chain[-1]).__name__}: {text}"
        return f"{key[1] if key else 'the config'} cannot be built: {cause} (+debug=true shows where)"
    if match := re.search(r"Key '(\w+)' not in '(\w+Config)'", str(error)):  # top-level key of a study
        return no_such_key(match[1], getattr(schema, match[2]).__dataclass_fields__, _root(chain))
    if isinstance(error, MissingConfigException) and str(error).startswith("Cannot find primary config"):
        known = suggest(str(error.missing_cfg_file), [path.stem for path in schema.STUDIES_DIR.glob("*.yaml")])
        return f"-cn {error.missing_cfg_file}: no such study (-cd <folder> adds your own); {known}"
    if match := re.search(r"Could not load '(\S+)/(\w+)'", str(error)):
        known = suggest(match[2], [path.stem for path in (schema.CONF_DIR / match[1]).glob("[!_]*.yaml")])
        return f"{match[1]}: no such option as {match[2]}; {known}"
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):  # raised by Hydra
        return "a group's option is a name, or a list of names: none instead of null, where there is such an option"
    if match := re.match(r"You must specify '(\S+)'.*?:\s+(.*)", str(error), re.DOTALL):
        options = ", ".join(match[2].split())
        return f"{usage.wanted(Path(sys.argv[0]).stem, [match[1]])} ({match[1]} is one of {options})"
    if match := re.search(r"Could not override '([\w/]+)/(\w+)'\. No match", str(error)):
        group, part = match.groups()  # Hydra's advice, +group=option, would add a key that nobody takes
        return (
            f"{group}/{part}=...: the chosen {group} has no {part}; choose another {group}=..., or check the spelling"
        )
    if isinstance(error, ValueError) and str(error).startswith("Only one of --run"):  # raised by Hydra
        return str(error)
    if isinstance(error, OverrideParseException):
        setting = error.override.partition("=")[0]
        return f"{error.override}: Hydra cannot parse this; quote the value twice, '{setting}=\"...\"' ($HOME is ~)"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        unknown = next((link for link in chain if isinstance(link, (ConfigKeyError, ConfigAttributeError))), None)
        return _unknown_key(unknown, _root(chain)) if unknown else _join_messages(chain)
    return None


def _key_as_given(message: str) -> str:
    """Return a message about a checkpoint with the key under which the command line names the file."""
    given = {argument.partition("=")[0] for argument in sys.argv[1:]}
    key = next((key for key in _NAME_CHECKPOINTS if key in given), "checkpoint")
    return re.sub(r"^checkpoint=", f"{key}=", message)


def _named_flag(message: str) -> str:
    """Return a message of Lightning with the flag that the command line sets, if it is about devices."""
    about = ("accelerator", "devices") if re.search(r"accelerator|backend|You requested", message) else ()
    given = [word for word in sys.argv[1:] if word.startswith(tuple(f"trainer.{flag}=" for flag in about))]
    remedy = "use trainer.accelerator=auto, or devices that are there"
    return f"{' '.join(given)}: {message.rstrip('!.')}; {remedy}" if given else message


def _makes_a_folder(error: OSError) -> bool:
    """Tell whether the error comes from making a folder. In `/proc` it is a mere FileNotFoundError."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name == "mkdir"


def _disk_message(error: OSError) -> str:
    name = str(error.filename or "a file")
    return str(write_error(Path(name if len(name) < _MAX_NAME else f"{name[:_MAX_NAME]}..."), error))


def _root(chain: list[BaseException]) -> DictConfig | None:
    """Return the whole configuration that an error of OmegaConf is about."""
    nodes = [link.parent_node for link in chain if isinstance(link, OmegaConfBaseException)]
    roots = (node._get_root() for node in nodes if node is not None)
    return next((root for root in roots if isinstance(root, DictConfig)), None)


def _unknown_key(error: OmegaConfBaseException, cfg: DictConfig | None) -> str:
    known = error.parent_node if isinstance(error.parent_node, DictConfig) else []
    return no_such_key(str(error.full_key or error.key), map(str, known), cfg)


def _join_messages(chain: list[BaseException]) -> str:
    """Join the lines of Hydra's messages and their causes, without repetitions."""
    lines = [line.strip().rstrip(".") for link in chain for line in str(link).splitlines()]
    relevant = [line for line in dict.fromkeys(lines) if line and not _NOISE.match(line)]
    text = re.sub(r":; ", ": ", "; ".join(relevant))
    return text.removeprefix("UserError raised while resolving interpolation: ")
