"""Networks on the Hugging Face Hub: a round trip through a server, and one line for whatever is wrong there."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load, save

import fastfcn_pl
from fastfcn_pl.core import reachability
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import network_folder
from fastfcn_pl.models.backbones.timm import TimmBackbone
from tests.fakes.hub_server import OWNER, Hub, client_of, hub_server
from tests.support.checkpoints import SPEC, write_checkpoint, write_results

Command = Callable[..., Any]
NAME = f"{OWNER}/tiny"
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as hub, client_of(hub.url, str(tmp_path / "cache")):
        yield hub
        assert hub.unknown == []


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A run's checkpoint, beside its results."""
    best = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    write_results(tmp_path / "run" / "results.json", "run/checkpoints/best.ckpt", mean_iou=0.625)
    return best


def _refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.slow
def test_a_round_trip_gives_equal_labels(hub: Hub, best: Path) -> None:
    assert fastfcn_pl.push_to_hub(best, NAME, license="mit") == f"{hub.url}/{NAME}"
    assert set(hub.files(NAME)) == {"README.md", "config.json", "model.safetensors"}
    labels = fastfcn_pl.Predictor(NAME)(IMAGE)
    assert (labels == fastfcn_pl.Predictor(best)(IMAGE)).all()
    assert fastfcn_pl.load(f"hf-hub:{NAME}").spec == SPEC


@pytest.mark.slow
def test_commands_take_its_name(hub: Hub, best: Path, tmp_path: Path, command: Command) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    for source, output in ((NAME, "theirs"), (best, "own")):
        done = command("predict", f"checkpoint={source}", "input=photo.png", f"output={output}", "save=[labels]")
        assert done.returncode == 0, done.stderr
    theirs, own = (next((tmp_path / name).rglob("*.png")).read_bytes() for name in ("theirs", "own"))
    assert theirs == own


@pytest.mark.slow
def test_a_revision_is_a_commit_and_the_latest_by_default(hub: Hub, best: Path) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    other = write_checkpoint(best.parent / "other.ckpt", seed=1)
    fastfcn_pl.push_to_hub(other, NAME, license="mit")
    first, latest = (fastfcn_pl.load(name).state_dict() for name in (f"{NAME}@{0:040x}", NAME))
    (old, new), key = (fastfcn_pl.load(path).state_dict() for path in (best, other)), "model.head.layers.2.weight"
    assert torch.equal(first[key], old[key])
    assert torch.equal(latest[key], new[key])
    assert not torch.equal(old[key], new[key])
    assert "the repository has no such revision" in _refused(lambda: fastfcn_pl.load(f"{NAME}@v2"))


def test_nothing_of_this_machine_is_published(hub: Hub, best: Path) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    content = json.loads(hub.files(NAME)["config.json"])
    assert not [file for file in hub.files(NAME).values() if str(best.parents[2]).encode() in file]
    assert content["config"]["data"]["root"] == "???"
    assert content["config"]["model"]["backbone"]["pretrained"] is False


def test_the_card_holds_scores_data_cost_and_licence(hub: Hub, best: Path) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="cc-by-4.0")
    _, metadata, text = hub.files(NAME)["README.md"].decode().split("---\n", 2)
    card = yaml.safe_load(metadata)
    assert (card["license"], card["library_name"]) == ("cc-by-4.0", "fastfcn_pl")
    (result,) = card["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["dataset"]["split"]) == ("camvid", "val")
    assert (result["metrics"][0]["value"], result["metrics"][0]["name"]) == (62.5, "mIoU, protocol native")
    for said in (
        "backbone `resnet18`, neck `jpu`, head `fcn`",
        "camvid val, protocol native: mIoU 62.50",
        "| a\\|b | 62.50 | 62.50 | 62.50 |",
        "| parameters | 2.50 M |",
        "| GMACs at 512x512 | 1.25 |",
        "cc-by-4.0 for the weights",
        f'fastfcn_pl.Predictor("{NAME}")',
    ):
        assert said in text


@pytest.mark.slow
def test_scores_of_another_checkpoint_are_not_on_the_card(hub: Hub, best: Path) -> None:
    last = write_checkpoint(best.parent / "last.ckpt")
    fastfcn_pl.push_to_hub(last, NAME, license="mit")
    assert "Not scored yet" in hub.files(NAME)["README.md"].decode()
    fastfcn_pl.push_to_hub(last, NAME, license="mit", results=best.parents[1] / "results.json")
    assert "mIoU 62.50" in hub.files(NAME)["README.md"].decode()


EVIL = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["model.neck", "model.backbone", "model", "protocol", "model.head"])
def test_a_tampered_configuration_is_refused_before_it_is_imported(
    key: str, hub: Hub, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    (tmp_path / "evil_part.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    content = json.loads(hub.files(NAME)["config.json"])
    node = content["config"]
    for name in key.split("."):
        node = node[name]
    node["_target_"] = "evil_part.Neck"
    hub.commit(NAME, {"config.json": json.dumps(content).encode()})
    line = _refused(lambda: fastfcn_pl.load(NAME))
    assert line.startswith(f"checkpoint={NAME}: {key}._target_=evil_part.Neck is none of fastfcn_pl's options")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": b"{"}, "config.json cannot be read"),
        ({"config.json": b"[" * 100_000}, "config.json cannot be read"),
        ({"config.json": b'{"model_type": "segformer"}'}, "is not of a network of fastfcn_pl"),
        ({"config.json": b'{"config": [], "spec": {}}'}, "it holds no configuration"),
        ({"config.json": b'{"config": {}, "spec": 3}'}, "cannot be used"),
        ({"model.safetensors": b"\x80\x04pickle"}, "model.safetensors cannot be read"),
        ({"model.safetensors": save({"model.head": torch.zeros(2)})}, "tensors are missing"),
    ],
)
def test_a_damaged_repository_is_one_line(change: dict[str, bytes], said: str, hub: Hub, best: Path) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    hub.commit(NAME, change)
    assert said in _refused(lambda: fastfcn_pl.load(NAME))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(file: str, hub: Hub, best: Path) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    del hub.files(NAME)[file]
    assert _refused(lambda: fastfcn_pl.load(NAME)) == f"{NAME}: the repository has no {file}: choose one that has"


def test_a_repository_that_is_not_there_is_one_line(hub: Hub) -> None:
    assert "nobody/nothing: no such repository" in _refused(lambda: fastfcn_pl.load("nobody/nothing"))
    assert "not the name of a repository" in _refused(lambda: fastfcn_pl.load("hf-hub:a/b/c"))


@pytest.mark.slow
def test_without_a_server_the_cache_serves(hub: Hub, best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    fastfcn_pl.load(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fastfcn_pl.load(NAME)
    line = _refused(lambda: fastfcn_pl.load(f"{OWNER}/other"))
    assert line.startswith(f"{OWNER}/other: config.json is not in the cache, and HF_HUB_OFFLINE is set")
    assert "HF_HUB_OFFLINE is set" in _refused(lambda: fastfcn_pl.push_to_hub(best, NAME, license="mit"))


def test_a_server_that_does_not_answer_is_named(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "TIMEOUT", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with client_of(url, str(tmp_path / "cache")):
            assert f"{url} does not answer" in _refused(lambda: fastfcn_pl.load(NAME))
            assert f"{url} does not answer" in _refused(lambda: fastfcn_pl.push_to_hub(best, NAME, license="mit"))


@pytest.mark.slow
def test_somebody_who_may_not_write_is_told_to_log_in(hub: Hub, best: Path, tmp_path: Path) -> None:
    assert "hf auth login" in _refused(lambda: fastfcn_pl.push_to_hub(best, "another/tiny", license="mit"))
    with client_of(hub.url, str(tmp_path / "cache"), token=None):
        assert "hf auth login" in _refused(lambda: fastfcn_pl.push_to_hub(best, NAME, license="mit"))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("tiny", {"license": "mit"}, "tiny: not the name of a repository"),
        (NAME, {"license": "my own!"}, "license=my own!: give an identifier"),
        (NAME, {"license": "mit", "results": "none.json"}, "results=none.json cannot be read"),
    ],
)
def test_a_mistake_is_seen_before_anything_is_sent(
    name: str, options: dict[str, Any], said: str, hub: Hub, best: Path
) -> None:
    assert said in _refused(lambda: fastfcn_pl.push_to_hub(best, name, **options))
    assert not hub.repositories


def test_a_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for source in ("best.ckpt", "nowhere/best.ckpt", "runs/camvid", "./x", "a/b/c", str(tmp_path / "x")):
        assert network_folder.find(source) is None, source
        assert "no such file" in _refused(lambda: fastfcn_pl.load(source))  # noqa: B023
    assert network_folder.find("runs") is None
    assert "checkpoint=runs: no checkpoints/best.ckpt in this folder" in _refused(lambda: fastfcn_pl.load("runs"))


@pytest.mark.slow
def test_a_folder_or_a_repository_gives_a_backbone_its_weights(hub: Hub, best: Path, tmp_path: Path) -> None:
    fastfcn_pl.push_to_hub(best, NAME, license="mit")
    for name, content in hub.files(NAME).items():
        (tmp_path / name).write_bytes(content)
    expected = load(hub.files(NAME)["model.safetensors"])["model.backbone.net.conv1.0.weight"]
    for source in (f"hf-hub:{NAME}", str(tmp_path)):
        backbone = TimmBackbone(name="test_resnet", output_stride=32, pretrained=source)
        assert torch.equal(backbone.net.get_submodule("conv1.0").weight, expected)
    (tmp_path / "empty").mkdir()
    for source in ("hf-hub:nobody/nothing", str(tmp_path / "empty")):
        line = _refused(lambda: TimmBackbone(name="test_resnet", output_stride=32, pretrained=source))  # noqa: B023
        assert "no such" in line
