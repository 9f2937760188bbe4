"""Changes of a configuration before objects are built from it."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from fastfcn_pl.config import build


@pytest.mark.parametrize("as_config", [False, True])
def test_a_network_is_built_without_fetching_weights(as_config: bool) -> None:
    content: dict[str, Any] = {"model": {"backbone": {"pretrained": True}}, "data": {"pretrained": True}}
    config = OmegaConf.create(content) if as_config else content
    build.without_pretrained(config)
    assert config == {"model": {"backbone": {"pretrained": False}}, "data": {"pretrained": True}}
