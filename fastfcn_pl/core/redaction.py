"""Redaction of secrets in everything that a run writes or prints.

A value is secret if the name of its key or environment variable says so (`password`, `api_key`), or if it is a login
or a query parameter such as `token=` in a URL. A configuration value that came from the environment is shown as its
interpolation instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
_HYDRA_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_")
# A word such as `password` counts anywhere in a name, unless the name locates the secret (`_file`, `_env`).
_SECRET_NAME = re.compile(
    r"(^|_)(password|passwd|passphrase|api_?key|(access|private|secret|auth|account|signing)_?key(_id)?|"
    r"(access|auth|session|security|refresh|bearer|client)_(token|secret))s?"
    r"(?!.*_(file|path|dir|folder|name|env|var|length|type)$)(_|$)"
    r"|(^|_)(token|secrets?|pass|pwd|pw|credentials?|auth|authorization|bearer|cookie|signature|jwt|"
    r"webhook(_url)?|connection_string)$",
    re.I,
)
_SECRET_PARAMETER = re.compile(r"key|sig|code|sas|awsaccesskeyid|googleaccessid", re.I)
_MAX_USER_NAME = 16
"""Characters of a user name; anything longer before the `@` of a URL, if there is no password, is a token."""
_HARMLESS_VALUES = {"", "true", "false", "yes", "no", "on", "off", "null", "none", "auto", "???", HIDDEN}
# Variables of the machine and the user; their values are ordinary words and folders.
_HARMLESS_VARIABLE = re.compile(
    r"USER|LOGNAME|HOME|PWD|OLDPWD|HOSTNAME|SHELL|LANG|TERM|PATH|TMPDIR|"
    r"(SLURM|CUDA|OMP|LC|XDG)_\w*|RANK|LOCAL_RANK|WORLD_SIZE"
)

_LOGINS = (
    re.compile(r"(?<=://)[^\s/?#\"'<>]+(?=@)"),
    # with a slash in the password
    re.compile(r"(?<=://)[^\s/@:\"'<>]{0,100}:(?!\d+(?:/|$))[^\s\"'<>]{1,300}(?=@)"),
    # without a scheme
    re.compile(r"(?<![\w/.%+@-])[\w.%+-]+:[^\s:/@\"'<>]+(?=@[\w-]+(?:\.[\w-]+)*(?::\d+)?(?:/|\s|$))"),
)
_QUERY = re.compile(r"(?<=[?&#;])(?P<name>[\w.\-%]+)=(?P<value>[^&;#\s\"'<>]+)")
_VALUE = r"(?P<value>\$\{\S*\}|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[^\s,;&\"'(){}\[\]<>#]+)"
_PAIR = re.compile(r"(?<![\w.\-/@%])(?P<name>[\w.\-/@%]*\w)\s?=\s?" + _VALUE)
_ENTRY = re.compile(
    r"(?:(?P<quote>[\"'])(?P<quoted>[\w.\-]+)(?P=quote)\s*:\s*|(?<=[{,])\s*(?P<name>[\w.\-]+)\s*:\s*)" + _VALUE
)
_LINE = re.compile(r"^[ \t\-]*(?P<name>[\w\-]+):[ \t]+(?P<value>\S.*)$", re.M)  # of YAML
_HEADER = re.compile(r"(?<=\bbearer )[\w\-.~+/=]{6,}|(?<=\bbasic )[\w\-.~+/=]{6,}", re.I)
_OVERRIDE = re.compile(r"(?P<key>[+~]*[\w./@:\-]+)=(?P<value>.*)", re.DOTALL)
_DEFAULT = re.compile(r"(\$\{oc\.env:\s*[^,{}]+,)(?!\s*(?:null\s*\}|\$\{|\*\*\*))[^{}]*\}")
_VARIABLE = re.compile(r"\$\{oc\.env:\s*([^,{}\s]+)")

_replacements: dict[str, str] = {}
"""Replacement text by secret, for the secrets that this process has seen so far."""
_pattern: re.Pattern[str] | None = None


def is_secret(name: object) -> bool:
    """Return whether the name of a key, dotted path or variable marks its value as secret."""
    words = str(name).replace("/", ".").replace("@", ".").rsplit(".", 1)[-1]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", words)  # apiKey
    return _SECRET_NAME.search(re.sub(r"[\W_]+", "_", words)) is not None


def remember(value: object, replacement: str = HIDDEN) -> None:
    """Remember a secret so that `hide` replaces it in any text; skip values too short or too common to search for."""
    global _pattern
    text = str(value).strip()
    if not _is_meaningful(value) or len(text) < 3 or (text.isalpha() and is_secret(text)):  # such as `password`
        return
    lines = [line.strip() for line in text.splitlines()] if "\n" in text else []
    for variant in (
        text,
        quote(text, safe=""),
        unquote(text),
        repr(text)[1:-1],
        *filter(lambda line: len(line) > 7, lines),
    ):
        if replacement == HIDDEN or variant not in _replacements:
            _replacements[variant] = replacement
    _pattern = None


def remember_in_text(text: str) -> None:
    """Remember the secrets in the URLs and `name=value` pairs of `text`."""
    for pattern in _LOGINS:
        for match in pattern.finditer(text):
            user, colon, password = match[0].partition(":")
            if colon or len(user) > _MAX_USER_NAME:
                remember(match[0])
                remember(password)
    matches = [match for match in _QUERY.finditer(text) if _is_secret_parameter(match["name"])]
    matches += [match for match in _PAIR.finditer(text) if is_secret(match["name"])]
    for match in matches:
        remember(match["value"].strip("\"'"))


def remember_variable(name: str, value: str) -> None:
    """Remember a value that the configuration read from the environment variable `name`.

    Values that are an existing path, short or numeric, or describe the machine are not secret. A default is secret
    only if the variable's name says so.
    """
    if is_secret(name):
        remember(value)
    remember_in_text(value)
    ordinary = _HARMLESS_VARIABLE.fullmatch(name) or len(value) < 6 or value.isdecimal() or os.path.exists(value)
    if name in os.environ and not ordinary:
        remember(value, f"${{oc.env:{name}}}")


def remember_process(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Remember the secrets in a command line and in the environment variables."""
    for name, value in environment.items():
        if is_secret(name) and not _HARMLESS_VARIABLE.fullmatch(name):
            remember(value)
        elif "://" in value:
            remember_in_text(value)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if is_secret(key) and "${" not in value:
            remember(value.strip("\"'"))
        remember_in_text(argument)


def hide(text: str) -> str:
    """Return `text` without remembered secrets and without those that its own syntax reveals."""
    if _replacements:
        text = _known_secrets().sub(lambda match: _replacements[match[0]], text)
    text = _redact_by_syntax(text)
    if "\n" in text:
        text = _LINE.sub(lambda match: _mask_match(match, is_secret(match["name"])), text)
    return text


def _redact_value(text: str) -> str:
    """Return a configuration value without secrets; keep ordinary words that happen to be a secret elsewhere."""
    if _replacements:
        text = _known_secrets().sub(lambda match: HIDDEN if _is_distinctive(match[0]) else match[0], text)
    return _redact_by_syntax(text)


def _is_distinctive(secret: str) -> bool:
    return _replacements[secret] == HIDDEN and (len(secret) > 7 or not secret.isalpha())


def _redact_by_syntax(text: str) -> str:
    if "://" in text or "@" in text:
        for pattern in _LOGINS:
            text = pattern.sub(HIDDEN, text)
    if "=" in text:
        text = _QUERY.sub(lambda match: _mask_match(match, _is_secret_parameter(match["name"])), text)
        text = _PAIR.sub(lambda match: _mask_match(match, is_secret(match["name"])), text)
    if ":" in text:
        text = _ENTRY.sub(lambda match: _mask_match(match, is_secret(match["quoted"] or match["name"])), text)
    if " " in text:
        text = _HEADER.sub(HIDDEN, text)
    return _mask_defaults(text) if any(map(is_secret, _VARIABLE.findall(text))) else text


def without_secrets(value: Any) -> Any:
    """Return plain containers without secrets; keep interpolations."""
    if isinstance(value, Mapping):
        safe = {key: _mask(item) if is_secret(key) else without_secrets(item) for key, item in value.items()}
        return {_redact_by_syntax(key) if isinstance(key, str) else key: item for key, item in safe.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    override = _OVERRIDE.fullmatch(value)
    if override is not None and is_secret(override["key"]):
        return f"{override['key']}={_mask(override['value'])}"
    return _redact_value(value)


def redacted(value: Any) -> Any:
    """Return plain containers without secrets, with paths relative to the working directory (`.`) or to home (`~`)."""
    if isinstance(value, str):
        return _redact_text(value)
    value = without_secrets(value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list) else value


def _known_secrets() -> re.Pattern[str]:
    global _pattern
    if _pattern is None:
        parts = [
            re.escape(value) if len(value) > 7 else rf"(?<!\w){re.escape(value)}(?!\w)"
            for value in sorted(_replacements, key=len, reverse=True)
        ]
        _pattern = re.compile("|".join(parts))
    return _pattern


def _is_meaningful(value: object) -> bool:
    """Return whether a value could be secret at all, unlike `true`, `12` or `null`."""
    if value is None or isinstance(value, bool):
        return False
    text = str(value).strip().strip("\"'")
    if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text, re.I):
        return len(re.sub(r"\D", "", text)) > 3
    return text.lower() not in _HARMLESS_VALUES


def _mask(value: Any) -> Any:
    """Return the value of a secret key masked; keep interpolations."""
    if isinstance(value, Mapping):
        return {key: item if key in _HYDRA_KEYS else _mask(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(item) for item in value]
    if not _is_meaningful(value):
        return value
    text = str(value).strip("\"'")
    if re.fullmatch(r"\$\{[\w.\[\]]+\}|\$\{[^\s]*oc\.env:.*\}", text):
        return _mask_defaults(text)
    return HIDDEN


def _is_secret_parameter(name: str) -> bool:
    name = unquote(name)
    return is_secret(name) or _SECRET_PARAMETER.fullmatch(name) is not None or "credential" in name.lower()


def _mask_match(match: re.Match[str], secret: bool) -> str:
    if not secret or not _is_meaningful(match["value"]):
        return match[0]
    whole, (start, end) = match[0], match.span("value")
    start, end = start - match.start(), end - match.start()
    quote = whole[start] if whole[start] in "\"'" else ""
    return f"{whole[:start]}{quote}{_mask(match['value'])}{quote}{whole[end:]}"


def _mask_defaults(text: str) -> str:
    """Return `text` with the default values of its `${oc.env:...}` interpolations masked."""
    while (shorter := _DEFAULT.sub(rf"\1{HIDDEN}}}", text)) != text:
        text = shorter
    return text


def _redact_text(text: str) -> str:
    for folder, short in ((os.getcwd(), "."), (str(Path.home()), "~")):
        if folder != os.sep:
            text = re.sub(rf"(?<![\w./-]){re.escape(folder)}(?=/|$)", short, text)
    return _redact_value(text)
