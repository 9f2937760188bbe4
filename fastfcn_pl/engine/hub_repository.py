"""Publishing a network on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from fastfcn_pl.core.reachability import check_server
from fastfcn_pl.core.redaction import without_secrets
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import network_folder
from fastfcn_pl.engine.checkpoint import Checkpoint
from fastfcn_pl.engine.model_card import model_card
from fastfcn_pl.models.weights import hub


def push_to_hub(
    checkpoint: str | Path,
    repository: str,
    *,
    license: str,
    results: str | Path | None = None,
    private: bool | None = None,
    trust: Any = (),
) -> str:
    """Publish a checkpoint as `<organisation>/<name>` of the Hugging Face Hub, and return its address there.

    The repository gets the weights as safetensors, their configuration without paths, and a model card. The card holds
    the scores of `results`, a `results.json`; by default that of the checkpoint's run, if it is about this checkpoint.
    `license` is an identifier of the hub, such as `mit`. An existing repository gets a new commit; a new one is
    `private`, or as the organisation's default says. Raises UserError if the hub refuses.

    >>> import fastfcn_pl
    >>> fastfcn_pl.push_to_hub("runs/camvid/checkpoints/best.ckpt", "somebody/camvid-jpu", license="mit")
    'http.../somebody/camvid-jpu'
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"{repository}: not the name of a repository of the hub: give <organisation>/<name>")
    if not re.fullmatch(r"[\w.-]+", license):
        raise UserError(f"license={license}: give an identifier of the hub, such as mit, cc-by-4.0 or other")
    trained = Checkpoint.read(checkpoint, trust)
    trained.build()  # raises UserError if weights do not fit
    card = model_card(repository, trained.spec, _results(Path(checkpoint), results), license)
    with TemporaryDirectory() as folder:
        network_folder.write(Path(folder), trained.state_dict, trained.config, trained.spec)
        Path(folder, "README.md").write_text(card, encoding="utf-8")
        return _upload(Path(folder), repository, private)


def _results(checkpoint: Path, file: str | Path | None) -> dict[str, Any] | None:
    """Return the results in `file`, or else of the checkpoint's run; None if the run has none of this checkpoint."""
    path = checkpoint.parents[1] / "results.json" if file is None and len(checkpoint.parents) > 1 else file
    if path is None or (file is None and not Path(path).is_file()):
        return None
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        of_another = file is None and Path(results["checkpoint"]).name != checkpoint.name
        return None if of_another else without_secrets({**results, "IoU": dict(results["IoU"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"results={path} cannot be read: give the results.json of a run or of evaluate") from error


def _upload(folder: Path, repository: str, private: bool | None) -> str:
    address = None if constants.HF_HUB_OFFLINE else hub.server()
    if address is None:
        raise UserError(f"{repository} cannot be written: HF_HUB_OFFLINE is set")
    if (failure := check_server(address).failure()) is not None:
        raise UserError(f"{repository} cannot be written: {address} does not answer ({failure}): check the network")
    api = HfApi(endpoint=address, library_name="fastfcn_pl")
    files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, files, commit_message="Upload a network of fastfcn_pl")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = " ".join(str(error).split())[:200]
        remedy = "log in with `hf auth login`, as one who may write there" if status in (401, 403) else "try again"
        raise UserError(f"{repository} cannot be written to {address} ({reason}): {remedy}") from error
    return str(url)
