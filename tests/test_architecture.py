"""The structure that the code keeps: what may import what, and which library appears where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fastfcn_pl"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    {
        "contracts",
        "double_backward",
        "kernels",
        "resize",
        "results",
        "provenance",
        "scoremap",
        "staging",
        "redaction",
        "network",
        "home",
        "usage",
    },
    {"models", "losses", "data"},
    {"inference", "metrics", "optim", "visualize", "charts", "video", "exported"},
    {"module", "prediction", "quantize", "exporters"},
    {
        *("callbacks", "loggers", "metrics_writer", "stopped", "scoring", "export_check", "saving", "diagnosis"),
        *("resolvers", "ranks", "outputs", "precedence", "composition", "stored_config", "hydra_files", "console"),
    },
    {"config", "frozen"},
    {"again", "mistakes", "signatures", "first_lines", "trainer_flags", "exits", "streams"},
    {"build", "trust", "sweep", "comparison", "job_folder"},
    {"checkpoint", "launch"},
    {"resume", "footprint", "reports"},
    {
        *("train", "evaluate", "report", "convert", "predict", "demo", "export", "prepare", "doctor"),
        *("benchmark", "dashboard", "__main__"),
    },
]
"""Imports go from right to left only, and not between the members of a layer."""
ALLOWED_WITHIN = {
    ("resize", "contracts"),
    ("scoremap", "resize"),
    ("staging", "contracts"),
    ("usage", "contracts"),
    ("composition", "precedence"),
    ("callbacks", "scoring"),
    ("callbacks", "stopped"),
    ("callbacks", "ranks"),
    ("loggers", "metrics_writer"),
    ("demo", "predict"),
    ("comparison", "sweep"),
}
_COMPOSE = [
    "resolvers",
    "precedence",
    "composition",
    "first_lines",
    "trainer_flags",
    "stored_config",
    "hydra_files",
    "config",
    "frozen",
    "sweep",
    "comparison",
    "again",
    "mistakes",
    "signatures",
    "build",
    "trust",
    "launch",
    "job_folder",
    "exits",
    "resume",
]
HOMES = {
    "hydra": {*_COMPOSE, *LAYERS[-1]},
    "omegaconf": {*_COMPOSE, *LAYERS[-1]},
    "lightning": {"data/datamodule", "data/datasets", *(name for layer in LAYERS[3:] for name in layer)},
    "timm": {"models/backbones"},
    "cv2": {"data/pixels"},
    "wandb": {"callbacks", "loggers", "dashboard"},
    "wandb_workspaces": {"dashboard"},
    "jinja2": {"reports/page"},
}


def _place(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").as_posix()


def _imports(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(part: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if part in layer]
    assert found, f"{part} is in no layer: add it to the one that it belongs to"
    return found[0]


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != PACKAGE or f.stem != "__init__"], ids=_place)
def test_imports_go_one_way(file: Path) -> None:
    part = _place(file).split("/")[0]
    for name in _imports(file):
        other = name.removeprefix("fastfcn_pl.").split(".")[0]
        if not name.startswith("fastfcn_pl.") or other == part or (part, other) in ALLOWED_WITHIN:
            continue
        assert _layer(other) < _layer(part), f"{_place(file)} imports {name}"


@pytest.mark.parametrize("library", HOMES)
def test_a_library_appears_where_it_belongs(library: str) -> None:
    places = {_place(file) for file in FILES if any(name.split(".")[0] == library for name in _imports(file))}
    strays = {p for p in places if not any(p == home or p.startswith(f"{home}/") for home in HOMES[library])}
    assert places, f"{library} is imported nowhere: the test looks for the wrong name"
    assert not strays
