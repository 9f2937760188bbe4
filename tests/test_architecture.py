"""The structure of the package: which folder may import which, and where each library may appear."""

from __future__ import annotations

import ast
import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastfcn_pl"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    {"core"},
    {"ops"},
    {"models", "losses", "data"},
    {"acceleration", "evaluation"},
    {"training"},
    {"config"},
    {"engine"},
    {"tools"},
]
"""Folders import downwards only, and those of one layer do not import each other. Commands import any of them."""
COMMANDS = {
    *("train", "evaluate", "predict", "export", "convert", "benchmark", "report", "prepare", "doctor", "dashboard"),
    *("demo", "__main__"),
}
HOMES = {
    "timm": ["models/backbones"],
    "lightning": ["data/datamodule", "data/file_datamodule", "training", "config", "engine", "tools"],
    "hydra": ["config", "engine", "tools"],
    "omegaconf": ["config", "engine", "tools"],
    "wandb": ["training/loggers", "training/callbacks", "tools/dashboard"],
    "wandb_workspaces": ["tools/dashboard"],
    "trackio": ["training/trackio_logger"],
    "cv2": ["data/transforms/image_ops", "losses/boundary"],
    "jinja2": ["tools/report/page"],
    "gradio": ["tools/demo"],
}
"""The only places that import a library."""
LONGEST = 250
"""Lines of a file."""


def _place(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").as_posix()


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _imports(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also inside functions."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(place: str) -> int:
    folder = place.split("/")[0]
    if "/" not in place and folder in COMMANDS:
        return len(LAYERS)
    found = [i for i, layer in enumerate(LAYERS) if folder in layer]
    assert found, f"{place} is in no folder of the design"
    return found[0]


def test_a_file_at_the_top_level_is_a_command() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == COMMANDS | {"__init__"}


@pytest.mark.slow
def test_imports_go_downwards() -> None:
    upward = []
    for file in FILES:
        place = _place(file)
        if file.name == "__init__.py":
            continue
        for name in _imports(file):
            other = name.removeprefix("fastfcn_pl.").replace(".", "/")
            same_folder = "/" in place and other.split("/")[0] == place.split("/")[0]
            if not name.startswith("fastfcn_pl.") or other == "__version__" or same_folder:
                continue
            if _layer(other) >= _layer(place):
                upward.append(f"{place} imports {name}")
    assert upward == []


@pytest.mark.parametrize("library", HOMES)
def test_a_library_appears_where_it_belongs(library: str) -> None:
    places = {_place(file) for file in FILES if any(name.split(".")[0] == library for name in _imports(file))}
    strays = {p for p in places if not any(p == home or p.startswith(f"{home}/") for home in HOMES[library])}
    assert places, f"{library} is imported nowhere: the test looks for the wrong name"
    assert not strays


def test_models_are_written_in_torch_layers_alone() -> None:
    for file in FILES:
        if _place(file).startswith("models/"):
            bases = [
                ast.unparse(base)
                for node in ast.walk(_tree(file))
                if isinstance(node, ast.ClassDef)
                for base in node.bases
            ]
            assert not any(base.endswith("Function") for base in bases), f"{file} defines an autograd.Function"


def test_no_file_is_too_long() -> None:
    assert [_place(file) for file in FILES if len(file.read_text().splitlines()) > LONGEST] == []


def _lazy(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports inside its functions."""
    for function in ast.walk(_tree(file)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield str(node.module)


OPTIONAL = {
    *("gradio", "av", "onnx", "onnxruntime", "scipy", "matplotlib", "imagecodecs", "triton", "wandb_workspaces"),
    *("trackio", "pandas"),
    *("tensorboard", "rich", "torchinfo"),
}
"""Libraries of extras, and those that most calls of their file do without."""
LAZY: dict[str, set[str]] = {
    "tools/report/command": {"fastfcn_pl.tools.report.page"},
    "models/weights/hub": {"huggingface_hub", "huggingface_hub.errors", "torch"},
    "engine/match": {"fastfcn_pl.engine.equal_cost"},
    "ops/depthwise_conv": {"fastfcn_pl.ops.depthwise_conv_triton"},
    "ops/interpolate": {"torch.fx.experimental.symbolic_shapes"},
    "ops/upsampled_cross_entropy": {"fastfcn_pl.ops.upsampled_cross_entropy_triton"},
    "tools/prepare/cityscapes": {"fastfcn_pl.data.datasets.cityscapes"},
    "tools/prepare/pascal_context": {"fastfcn_pl.data.datasets.pascal_context"},
    "training/distributed": {"torch", "torch.distributed", "lightning.fabric.plugins.environments"},
}
"""Further imports inside functions, each with its reason beside it in the code."""


@pytest.mark.slow
def test_imports_stand_at_the_top() -> None:
    lazy = {(_place(file), name) for file in FILES for name in _lazy(file) if name.split(".")[0] not in OPTIONAL}
    assert lazy == {(place, name) for place, names in LAZY.items() for name in names}


@pytest.mark.slow
def test_a_module_docstring_begins_with_a_noun_or_an_imperative() -> None:
    files = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
    first_words = {file: (ast.get_docstring(_tree(file)) or "").split(" ")[0] for file in files}
    assert [f for f, word in first_words.items() if word in {"What", "How", "Which", "Whether", "Where"}] == []


def test_nothing_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    assert not [requirement for requirement in requirements if "==" in requirement]
