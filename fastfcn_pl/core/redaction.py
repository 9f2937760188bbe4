"""Secrets, kept out of every file that a run writes and out of everything that it prints.

A value is a secret if its key or its variable is named like one, or if it stands in an address: a login, or a parameter
of a query such as `token=`. What a configuration takes from the environment is shown as the interpolation it came by.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
_OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_")
# `password` and its like are secrets wherever they stand in a name, but for what says where the secret is kept.
_SECRET = re.compile(
    r"(^|_)(password|passwd|passphrase|api_?key|(access|private|secret|auth|account|signing)_?key(_id)?|"
    r"(access|auth|session|security|refresh|bearer|client)_(token|secret))s?"
    r"(?!.*_(file|path|dir|folder|name|env|var|length|type)$)(_|$)"
    r"|(^|_)(token|secrets?|pass|pwd|pw|credentials?|auth|authorization|bearer|cookie|signature|jwt|"
    r"webhook(_url)?|connection_string)$",
    re.I,
)
_OF_A_QUERY = re.compile(r"key|sig|code|sas|awsaccesskeyid|googleaccessid", re.I)
_LONGEST_USER = 16
"""The most letters of a name: what is longer before the @ of an address, without a password, is a token."""
_WORDS = {"", "true", "false", "yes", "no", "on", "off", "null", "none", "auto", "???", HIDDEN}
# Variables that describe the machine and the user, whose values are ordinary words and folders.
_PLAIN_VARIABLE = re.compile(
    r"USER|LOGNAME|HOME|PWD|OLDPWD|HOSTNAME|SHELL|LANG|TERM|PATH|TMPDIR|"
    r"(SLURM|CUDA|OMP|LC|XDG)_\w*|RANK|LOCAL_RANK|WORLD_SIZE"
)

_LOGINS = (
    re.compile(r"(?<=://)[^\s/?#\"'<>]+(?=@)"),
    re.compile(r"(?<=://)[^\s/@:\"'<>]{0,100}:(?!\d+(?:/|$))[^\s\"'<>]{1,300}(?=@)"),  # a slash in a password
    re.compile(
        r"(?<![\w/.%+@-])[\w.%+-]+:[^\s:/@\"'<>]+(?=@[\w-]+(?:\.[\w-]+)*(?::\d+)?(?:/|\s|$))"
    ),  # without https://
)
_QUERY = re.compile(r"(?<=[?&#;])(?P<name>[\w.\-%]+)=(?P<value>[^&;#\s\"'<>]+)")
_PAIR = re.compile(
    r"(?<![\w.\-/@%])(?P<name>[\w.\-/@%]*\w)\s?=\s?"
    r"(?P<value>\$\{\S*\}|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[^\s,;&\"'(){}\[\]<>#]+)"
)
_ENTRY = re.compile(
    r"(?:(?P<quote>[\"'])(?P<quoted>[\w.\-]+)(?P=quote)\s*:\s*|(?<=[{,])\s*(?P<name>[\w.\-]+)\s*:\s*)"
    r"(?P<value>\$\{\S*\}|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[^\s,;&\"'(){}\[\]<>#]+)"
)
_LINE = re.compile(r"^[ \t\-]*(?P<name>[\w\-]+):[ \t]+(?P<value>\S.*)$", re.M)  # of YAML
_HEADER = re.compile(r"(?<=\bbearer )[\w\-.~+/=]{6,}|(?<=\bbasic )[\w\-.~+/=]{6,}", re.I)
_OVERRIDE = re.compile(r"(?P<key>[+~]*[\w./@:\-]+)=(?P<value>.*)", re.DOTALL)
_DEFAULT = re.compile(r"(\$\{oc\.env:\s*[^,{}]+,)(?!\s*(?:null\s*\}|\$\{|\*\*\*))[^{}]*\}")
_VARIABLE = re.compile(r"\$\{oc\.env:\s*([^,{}\s]+)")

_known: dict[str, str] = {}
"""The text that is shown instead of each secret that this process has met."""
_pattern: re.Pattern[str] | None = None


def is_secret(name: object) -> bool:
    """Tell whether a key, a dotted path or a variable is named like a secret."""
    words = str(name).replace("/", ".").replace("@", ".").rsplit(".", 1)[-1]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", words)  # apiKey
    return _SECRET.search(re.sub(r"[\W_]+", "_", words)) is not None


def learn(value: object, shown: str = HIDDEN) -> None:
    """Remember a secret, so that `hide` finds it in any text; short words and small numbers would hide too much."""
    global _pattern
    text = str(value).strip()
    if not _could_be_secret(value) or len(text) < 3 or (text.isalpha() and is_secret(text)):  # the password `password`
        return
    lines = [line.strip() for line in text.splitlines()] if "\n" in text else []
    for variant in (text, quote(text, safe=""), unquote(text), repr(text)[1:-1], *(x for x in lines if len(x) > 7)):
        if shown == HIDDEN or variant not in _known:
            _known[variant] = shown
    _pattern = None


def learn_addresses(text: str) -> None:
    """Remember the secrets that stand in the addresses of `text`."""
    for pattern in _LOGINS:
        for found in pattern.finditer(text):
            user, colon, password = found[0].partition(":")
            if colon or len(user) > _LONGEST_USER:
                learn(found[0])
                learn(password)
    for found in (*_QUERY.finditer(text), *_PAIR.finditer(text)):
        if _of_query(found) or (found.re is _PAIR and is_secret(found["name"])):
            learn(found["value"].strip("\"'"))


def learn_from_environment(name: str, value: str) -> None:
    """Remember what a configuration took from the variable `name`; folders and the user's name are no secrets.

    A default, which it gave itself, is one if the variable is named like one.
    """
    if is_secret(name):
        learn(value)
    learn_addresses(value)
    ordinary = _PLAIN_VARIABLE.fullmatch(name) or len(value) < 6 or value.isdecimal() or os.path.exists(value)
    if name in os.environ and not ordinary:
        learn(value, f"${{oc.env:{name}}}")


def learn_process(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Remember the secrets of a command line, and those of the variables that are named like one."""
    for name, value in environment.items():
        if is_secret(name) and not _PLAIN_VARIABLE.fullmatch(name):
            learn(value)
        elif "://" in value:
            learn_addresses(value)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if is_secret(key) and "${" not in value:
            learn(value.strip("\"'"))
        learn_addresses(argument)


def hide(text: str) -> str:
    """Return `text` for people: without the secrets that were met before, and those that it shows by itself."""
    if _known:
        text = _met().sub(lambda found: _known[found[0]], text)
    text = _shown_alone(text)
    if "\n" in text:
        text = _LINE.sub(lambda found: _without_value(found, is_secret(found["name"])), text)
    return text


def _hide_value(text: str) -> str:
    """Return a value of a configuration without secrets: it stays itself if a word in it is a secret elsewhere."""
    if _known:
        text = _met().sub(lambda found: HIDDEN if _is_no_word(found[0]) else found[0], text)
    return _shown_alone(text)


def _is_no_word(secret: str) -> bool:
    return _known[secret] == HIDDEN and (len(secret) > 7 or not secret.isalpha())


def _shown_alone(text: str) -> str:
    if "://" in text or "@" in text:
        for pattern in _LOGINS:
            text = pattern.sub(HIDDEN, text)
    if "=" in text:
        text = _QUERY.sub(lambda found: _without_value(found, _of_query(found)), text)
        text = _PAIR.sub(lambda found: _without_value(found, is_secret(found["name"])), text)
    if ":" in text:
        text = _ENTRY.sub(lambda found: _without_value(found, is_secret(found["quoted"] or found["name"])), text)
    if " " in text:
        text = _HEADER.sub(HIDDEN, text)
    return _without_defaults(text) if any(map(is_secret, _VARIABLE.findall(text))) else text


def without_secrets(value: Any) -> Any:
    """Return plain containers without secrets; interpolations stay as they are."""
    if isinstance(value, Mapping):
        return {
            _shown_alone(key) if isinstance(key, str) else key: _covered(item)
            if is_secret(key)
            else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    override = _OVERRIDE.fullmatch(value)
    if override is not None and is_secret(override["key"]):
        return f"{override['key']}={_covered(override['value'])}"
    return _hide_value(value)


def redacted(value: Any) -> Any:
    """Return plain containers as others may see them: no secrets; paths start at `.` or at `~`, the user's folder."""
    if isinstance(value, str):
        return _relative(value)
    value = without_secrets(value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list) else value


def _met() -> re.Pattern[str]:
    global _pattern
    if _pattern is None:
        parts = [
            re.escape(value) if len(value) > 7 else rf"(?<!\w){re.escape(value)}(?!\w)"
            for value in sorted(_known, key=len, reverse=True)
        ]
        _pattern = re.compile("|".join(parts))
    return _pattern


def _could_be_secret(value: object) -> bool:
    """Tell whether a value says more than true, 12 or null."""
    if value is None or isinstance(value, bool):
        return False
    text = str(value).strip().strip("\"'")
    if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text, re.I):
        return len(re.sub(r"\D", "", text)) > 3
    return text.lower() not in _WORDS


def _covered(value: Any) -> Any:
    """Return what stands under the name of a secret without its value: an interpolation, or nothing of it."""
    if isinstance(value, Mapping):
        return {key: item if key in _OF_HYDRA else _covered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_covered(item) for item in value]
    if not _could_be_secret(value):
        return value
    text = str(value).strip("\"'")
    if re.fullmatch(r"\$\{[\w.\[\]]+\}|\$\{[^\s]*oc\.env:.*\}", text):
        return _without_defaults(text)
    return HIDDEN


def _of_query(found: re.Match[str]) -> bool:
    name = unquote(found["name"])
    return found.re is _QUERY and (
        is_secret(name) or _OF_A_QUERY.fullmatch(name) is not None or "credential" in name.lower()
    )


def _without_value(found: re.Match[str], secret: bool) -> str:
    if not secret or not _could_be_secret(found["value"]):
        return found[0]
    whole, (start, end) = found[0], found.span("value")
    start, end = start - found.start(), end - found.start()
    quote = whole[start] if whole[start] in "\"'" else ""
    return f"{whole[:start]}{quote}{_covered(found['value'])}{quote}{whole[end:]}"


def _without_defaults(text: str) -> str:
    """Return `text` without the values that its interpolations have where a variable is not set."""
    while (shorter := _DEFAULT.sub(rf"\1{HIDDEN}}}", text)) != text:
        text = shorter
    return text


def _relative(text: str) -> str:
    for folder, sign in ((os.getcwd(), "."), (str(Path.home()), "~")):
        if folder != os.sep:
            text = re.sub(rf"(?<![\w./-]){re.escape(folder)}(?=/|$)", sign, text)
    return _hide_value(text)
