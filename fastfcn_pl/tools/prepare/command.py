"""Command `prepare`: download, extract and convert a data set."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fastfcn_pl.config import build, schema, validation
from fastfcn_pl.core.types import UserError
from fastfcn_pl.engine import hydra_job
from fastfcn_pl.tools.prepare.folder_lock import locked


def prepare(cfg: DictConfig) -> None:
    """Download, extract and convert `cfg.data` as `cfg.prepare` says, and print the sizes of its splits."""
    if cfg.prepare is None:
        options = sorted(path.stem for path in (schema.CONF_DIR / "prepare").glob("*.yaml"))
        raise UserError(
            f"data={hydra_job.choices().get('data')} needs no preparation; only {', '.join(options)} do: start training"
        )

    if "archives" not in cfg.prepare:
        _from_annotations(cfg)
        return
    validation.check(cfg)
    datamodule = build.build(cfg.data, 0)
    download, source = build.build(cfg.download), build.build(cfg.prepare)
    root = datamodule.root
    archives = Path(os.path.expanduser(cfg.archives)) if cfg.archives else root / "archives"
    for key, path in (("data.root", root), ("archives", archives)):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{key}={path} is not a folder: give a folder, which may be a new one")
    with ExitStack() as locks:
        for folder in sorted({root.resolve(), archives.resolve()}):  # a fixed order prevents deadlocks
            locks.enter_context(locked(folder))
        source.prepare(root, archives, cfg.mirror, download, cfg.num_workers)
    for split, official in datamodule.split_sizes.items():
        print(f"{split}: {len(datamodule.files(split))} images (of {official} officially)")
    print(f"{datamodule.spec.name} is ready: data.root={cfg.data.root}")
    if archives.is_dir():
        print(f"{archives} is no longer needed")


def _from_annotations(cfg: DictConfig) -> None:
    """Draw the annotations below `cfg.data.root`, whose classes need not be given."""
    if OmegaConf.is_missing(cfg.data, "classes"):
        cfg.data.classes = None
    validation.check(cfg)
    root = Path(os.path.expanduser(str(cfg.data.root)))
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give the folder with the images and annotation files")
    source, data = build.build(cfg.prepare), build.plain(cfg.data)
    name = root.resolve().name or "annotated" if data["name"] == "folder" else data["name"]
    with locked(root):
        source.convert(root, name, data["classes"], data["max_pixels"], cfg.num_workers)
