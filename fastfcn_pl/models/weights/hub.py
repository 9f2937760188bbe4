"""Pretrained weights from the Hugging Face hub, or from its cache; an unreachable hub is reported within seconds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from fastfcn_pl.core.reachability import TIMEOUT, ConnectionCheck, check_server
from fastfcn_pl.core.types import UserError

SCHEME = "hf-hub:"
WEIGHTS = "model.safetensors"
_STALLED = 30.0
"""Seconds without a byte after which a download fails."""
_TRUE = ("1", "on", "yes", "true")
_REMEDY = (
    "check the network (HF_ENDPOINT names a mirror), give a file as model.backbone.pretrained=<path>, or train from "
    "scratch: model.backbone.pretrained=false, as -cn quickstart does"
)


def server() -> str | None:
    """Return the hub's address; None if the environment says to stay offline."""
    if any(os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        return None
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def begin() -> None:
    """Start to check that the hub can be reached, while other things are imported."""
    if (address := server()) is not None:
        check_server(address)


@contextmanager
def access(name: str, repository: str | None, url: str | None = None) -> Iterator[None]:
    """Allow loading weights of the network `name` from the hub's `repository`, else from `url`, or from a cache.

    Raises UserError if they are not in the cache and the server does not answer.
    """
    from huggingface_hub import constants  # `begin` is called before anything slow is imported

    offline = constants.HF_HUB_OFFLINE
    if repository is None:
        failure = None if url is None or _is_downloaded(url) else check_server(url).failure()
        if failure is not None:
            raise UserError(_refusal(name, url, failure))
        cached = False
    else:
        cached = _is_cached(repository, WEIGHTS)
        failure = None if cached or offline or server() is None else _failure(name, repository)
    timeout = socket.getdefaulttimeout()
    constants.HF_HUB_OFFLINE = offline or cached or failure is not None
    socket.setdefaulttimeout(_STALLED)
    try:
        yield
    except Exception as error:
        if _is_of_the_hub(error) and (failure is not None or offline):
            raise UserError(_refusal(name, server(), failure)) from error
        raise
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(timeout)


def fetch(repository: str, *files: str) -> list[Path]:
    """Return `files` of one commit of the hub's `repository[@revision]`, downloaded or from the cache.

    Raises UserError if one is in neither.
    """
    from huggingface_hub import constants, hf_hub_download  # as in `access`

    name, _, revision = repository.partition("@")
    address = None if constants.HF_HUB_OFFLINE else server()
    failure = None if address is None else check_server(address).failure()
    paths = list[Path]()
    for file in files:
        try:
            path = hf_hub_download(
                name,
                file,
                revision=revision or None,
                endpoint=address,
                local_files_only=address is None or failure is not None,
                etag_timeout=TIMEOUT,
            )
        except Exception as error:  # of the client and of the libraries below it
            raise UserError(f"{repository}: {_why_not_fetched(error, file, address, failure)}") from error
        paths.append(Path(path))
        revision = paths[-1].parent.name
    return paths


def _why_not_fetched(error: Exception, file: str, address: str | None, failure: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return "not the name of a repository of the hub: give <organisation>/<name>"
    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on its page of the hub first, and log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository on {address}, or a private one: check the name, or log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision: name a branch, tag or commit after the @"
    if isinstance(error, errors.LocalEntryNotFoundError) and (address is None or failure is not None):
        where = "HF_HUB_OFFLINE is set" if address is None else f"{address} does not answer ({failure})"
        return (
            f"{file} is not in the cache, and {where}: check the network (HF_ENDPOINT names a mirror), or give a file"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"the repository has no {file}: choose one that has"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{file} could not be fetched from {address} ({reason}): try again"


def _failure(name: str, repository: str) -> str | None:
    """Return why the hub's `repository` cannot be reached; the client itself would retry for over a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    address = server()
    assert address is not None
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"fetching weights of {name} from {address}", flush=True)
    repo, _, revision = repository.partition("@")

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(repo, WEIGHTS, revision=revision or None), timeout=TIMEOUT)
        except EntryNotFoundError:  # its weights are in another file
            return

    return check_server(address).failure() or ConnectionCheck(ask).failure()


def _refusal(name: str, address: str | None, failure: str | None) -> str:
    where = "HF_HUB_OFFLINE is set" if failure is None else f"{address} does not provide them ({failure})"
    return f"pretrained weights of {name} are not in the cache, and {where}: {_REMEDY}"


def _is_downloaded(url: str) -> bool:
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name).is_file()


def _is_cached(repository: str, file: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = repository.partition("@")
    return isinstance(try_to_load_from_cache(repo, file, revision=revision or None), str)


def _is_of_the_hub(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__module__.startswith("huggingface_hub"):
            return True
        error = error.__cause__
    return False
