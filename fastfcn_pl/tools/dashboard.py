"""A view of a W&B project, and a report about one of its studies.

The view shows what every run logs: curves, classes, confusion, the same images over time, and the settings that differ.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb
from omegaconf import DictConfig

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.types import UserError
from fastfcn_pl.training.wandb_server import logged_in

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

SCORE = "final/mIoU"
STEP = "trainer/global_step"
COSTS = {"latency_ms": "latency, ms", "gmacs": "GMACs", "parameters": "parameters"}
"""Entries of a run's summary about its cost, and their titles."""
PARTS = ("backbone", "neck", "head")
TABLES = ("final/classes", "val/classes")
CONFUSION = "final/confusion", "val/confusion"
_PAGE_SECTIONS = ("Differences", "Claims", "What was learned")
"""Sections of a page of `report` that open a W&B report."""
_FULL, _HALF, _THIRD = 24, 12, 8
"""Widths in the grid of a report."""


def dashboard(cfg: DictConfig) -> None:
    """Make the view, and with `cfg.study` a report. Save them to W&B, write them as JSON, or both."""
    if not cfg.save and cfg.output is None:
        raise UserError("save=false without output=<file.json> leaves nothing: give one of them")
    entity, project = _place(cfg.project)
    views: dict[str, Any] = {"workspace": workspace(entity, project, cfg.name, cfg.samples)}
    if cfg.study is not None:
        views["report"] = study_report(entity, project, cfg.study, cfg.samples, _study_text(cfg.text))
    if cfg.output is not None:
        with atomic_write(cfg.output) as hidden:
            hidden.write_text(json.dumps({name: spec(view) for name, view in views.items()}, indent=2) + "\n")
        print(cfg.output)
    if cfg.save:
        _save(views)


def workspace(entity: str, project: str, name: str, samples: int) -> ws.Workspace:
    """Return the saved view of a project. Studies are compared in a section of their own."""
    ws, wr = _library()
    sections = [
        ws.Section(
            name="Scores",
            is_open=True,
            panels=[
                _curve(wr, "mIoU", y=["val/mIoU"], title_y="mIoU"),
                _curve(wr, "accuracy", y=["val/pixel_accuracy", "val/mean_accuracy"]),
                wr.BarPlot(title="final mIoU", metrics=[SCORE], max_bars_to_show=20),
            ],
        ),
        ws.Section(name="Training", is_open=True, panels=_training(wr)),
        ws.Section(
            name="Images",
            is_open=True,
            panels=[_slider(wr, samples), wr.MediaBrowser(title="worst images", media_keys=["final/worst"])],
            layout_settings=ws.SectionLayoutSettings(columns=1, rows=2),
        ),
        ws.Section(
            name="Classes",
            panels=_classes(wr),
            layout_settings=ws.SectionLayoutSettings(columns=2, rows=2),
        ),
        ws.Section(name="Study: accuracy against cost", is_open=True, panels=_against_cost(wr)),
        ws.Section(
            name="Study: settings",
            panels=[_parallel(wr), wr.RunComparer(diff_only="split")],
            layout_settings=ws.SectionLayoutSettings(columns=1, rows=2),
        ),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
        runset_settings=ws.RunsetSettings(
            pinned_columns=[
                "run:displayName",
                *(f"summary:{key}" for key in (SCORE, "best_mIoU", *COSTS, *PARTS, "protocol")),
            ],
        ),
    )


def study_report(entity: str, project: str, study: str, samples: int, text: str) -> wr.Report:
    """Return a W&B report about the runs of the group `study`; it begins with the Markdown `text`."""
    _, wr = _library()
    from wandb_workspaces import expr

    def grid(panels: list[Any], width: int, height: int = 8) -> Any:
        for panel in panels:
            panel.layout = wr.Layout(w=width, h=height)
        order = [wr.OrderBy(wr.SummaryMetric(SCORE), ascending=False)]
        # Without a project it is the report's own, which needs no look-up on the server.
        runs = wr.Runset(name=study, filters=expr.And(expr.Metric("Group") == study), order=order)
        return wr.PanelGrid(runsets=[runs], panels=panels)

    command = f"python -m fastfcn_pl.dashboard {entity}/{project} study={study}"
    blocks = [
        *([wr.MarkdownBlock(text=text)] if text else []),
        wr.H2("Accuracy against cost"),
        grid(_against_cost(wr), _THIRD),
        wr.H2("Scores"),
        grid([wr.BarPlot(title="final mIoU", metrics=[SCORE], max_bars_to_show=20), _parallel(wr)], _HALF, 10),
        grid([_curve(wr, "mIoU", y=["val/mIoU"]), *_training(wr)[:1]], _HALF),
        wr.H2("Classes"),
        grid(_classes(wr), _HALF, 12),
        wr.H2("The same images"),
        grid([_slider(wr, samples)], _FULL, 14),
        wr.H2("What differs"),
        grid([wr.RunComparer(diff_only="split")], _FULL, 12),
        wr.P([f"Written by {command}"]),
    ]
    return wr.Report(entity=entity, project=project, title=study[-128:].replace("/", " "), blocks=blocks, width="fluid")


def spec(view: ws.Workspace | wr.Report) -> dict[str, Any]:
    """Return a workspace or a report as the JSON that W&B keeps."""
    return view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def _curve(wr: Any, title: str, **options: Any) -> Any:
    """Return a plot over training steps. The view's x-axis does not apply to plots, so each sets its own."""
    return wr.LinePlot(title=title, x=STEP, **options)


def _training(wr: Any) -> list[Any]:
    return [
        _curve(
            wr, "losses", metric_regex="train/(loss|.*cross_entropy.*|se|dice|lovasz.*|ohem|focal|tversky|boundary)"
        ),
        _curve(wr, "learning rate", metric_regex="lr-.*"),
        _curve(wr, "gradient norm", y=["train/grad_norm"], log_y=True),
        _curve(wr, "images/s", y=["train/images_per_second"]),
        _curve(wr, "share of time spent waiting for data", y=["train/data_wait"], range_y=(0, 1)),
        _curve(wr, "GPU memory, GiB", y=["train/gpu_memory_gib"]),
    ]


def _classes(wr: Any) -> list[Any]:
    return [
        _curve(wr, "IoU by class", metric_regex="val/IoU/.*"),
        wr.MediaBrowser(title="confusion", media_keys=list(CONFUSION)),
        *(wr.WeavePanelSummaryTable(table_name=table) for table in TABLES),
    ]


def _slider(wr: Any, samples: int) -> Any:
    """Return the same images with their masks, and a slider over the training steps."""
    keys = [f"val/samples/{i}" for i in range(samples)]
    return wr.MediaBrowser(title="the same images", media_keys=keys, mode="gallery", gallery_axis="step", num_columns=4)


def _against_cost(wr: Any) -> list[Any]:
    score = wr.SummaryMetric(SCORE)
    return [
        wr.ScatterPlot(
            title=f"mIoU against {label}",
            x=wr.SummaryMetric(key),
            y=score,
            legend_template="${run:displayName} ${summary:backbone} ${summary:neck} ${summary:head}",
        )
        for key, label in COSTS.items()
    ]


def _parallel(wr: Any) -> Any:
    keys = [*PARTS, "protocol", "seed", *COSTS, SCORE]
    columns = [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(key), display_name=COSTS.get(key, key)) for key in keys
    ]
    learning_rate = wr.ParallelCoordinatesPlotColumn(wr.Config("optimizer.lr"), display_name="learning rate", log=True)
    return wr.ParallelCoordinatesPlot(title="settings and mIoU", columns=[learning_rate, *columns])


def _place(project: str) -> tuple[str, str]:
    entity, _, name = project.strip("/").partition("/")
    if not entity or not name or "/" in name:
        raise UserError(f"project={project}: give <entity>/<project>, as in the project's URL on W&B")
    return entity, name


def _study_text(page: str | None) -> str:
    """Return question, answer, verdicts and conclusions of a Markdown page of `report`."""
    if page is None:
        return ""
    path = Path(page)
    if not path.is_file():
        raise UserError(f"text={page}: no such file; give a Markdown page that `fastfcn_pl.report` wrote")
    head, *sections = re.split(r"^(?=#+ )", path.read_text().partition("\n")[2], flags=re.MULTILINE)
    paragraphs = re.findall(r"^\*\*(?:Question|Answer)\.\*\* .*$", head, re.MULTILINE)
    kept = [section.strip() for section in sections if section.partition("\n")[0].lstrip("# ") in _PAGE_SECTIONS]
    return "\n\n".join([*paragraphs, *kept])


def _save(views: dict[str, Any]) -> None:
    if not logged_in():
        raise UserError("not logged in to W&B: run wandb login, or set save=false output=<file.json>")
    try:
        for view in views.values():
            view.save()
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(f"W&B rejected it ({' '.join(str(error).split())}): check that the project exists") from error
    for name, view in views.items():
        print(f"{name}: {view.url}")


def _library() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError("the dashboard needs wandb-workspaces: pip install 'fastfcn-pl[dashboard]'") from error
    return ws, wr
