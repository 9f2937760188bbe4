"""Pretrained weights without a network: a refusal within seconds, or the cache."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save_file

from fastfcn_pl.core import reachability
from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.weights import hub

REPOSITORY = "timm/test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(reachability, "TIMEOUT", 1.0)
    monkeypatch.setattr(hub, "TIMEOUT", 1.0)
    reachability.check_server.cache_clear()
    yield tmp_path / "hub"
    reachability.check_server.cache_clear()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the hub's address, which its client reads when it is imported."""

    def use(address: str) -> None:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)

    return use


@pytest.fixture(params=["accepts and is silent", "refuses", "has no name", "is broken", "answers, but not for files"])
def unreachable(request: pytest.FixtureRequest) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self.path != "/" and request.param == "answers, but not for files":
                time.sleep(3)
            self.send_response(503 if request.param == "is broken" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    if request.param == "has no name":
        yield "http://hub.invalid"
        return
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if request.param == "accepts and is silent":
            listening.listen()
        if request.param in ("accepts and is silent", "refuses"):
            yield address
            return
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _build(name: str = "test_resnet", pretrained: bool = True) -> TimmBackbone:
    return TimmBackbone(name=name, output_stride=32, pretrained=pretrained)


def test_a_hub_that_gives_nothing_is_named_in_seconds(
    unreachable: str, endpoint: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint(unreachable)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"not in the cache, and .* does not provide them .*pretrained=false") as error:
        _build()
    assert unreachable in str(error.value)
    assert time.monotonic() - begun < 5
    assert capsys.readouterr().out == f"fetching weights of test_resnet from {unreachable}\n"


def test_weights_in_the_cache_need_no_hub(
    cache: Path, endpoint: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint("http://hub.invalid")
    snapshot = cache / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123")
    random = timm.create_model("test_resnet", pretrained=False)
    save_file(random.state_dict(), snapshot / "model.safetensors")
    loaded = _build()
    assert (loaded.net.get_submodule("conv1.0").weight == random.get_submodule("conv1.0").weight).all()
    assert capsys.readouterr().out == ""
    assert constants.HF_HUB_OFFLINE is False


def test_staying_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, endpoint: Callable[[str], None]) -> None:
    endpoint("http://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        _build()


def test_a_network_of_the_hub_is_refused_likewise(endpoint: Callable[[str], None]) -> None:
    endpoint("http://hub.invalid")
    with pytest.raises(UserError, match="hf-hub:timm/nothing are not in the cache"):
        _build("hf-hub:timm/nothing", pretrained=False)


def test_random_weights_ask_nobody(endpoint: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    endpoint("http://hub.invalid")
    _build(pretrained=False)
    assert capsys.readouterr().out == ""


def test_another_mistake_is_not_blamed_on_the_hub(endpoint: Callable[[str], None]) -> None:
    endpoint("http://hub.invalid")
    with pytest.raises(UserError, match="does not serve"):
        _build("test_vit")


def test_weights_at_an_address_of_their_own_are_refused_likewise() -> None:
    with (
        pytest.raises(UserError, match=r"http://hub\.invalid/x\.pth does not provide them"),
        hub.access("x", None, "http://hub.invalid/x.pth"),
    ):
        pytest.fail("nothing is loaded")
