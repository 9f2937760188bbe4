"""The page about runs: one HTML file that needs nothing beside it, and Markdown with a folder of pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.tools.report import costs, figures, pictures
from fastfcn_pl.tools.report.files import read_text, read_yaml
from fastfcn_pl.tools.report.groups import Comparison, Group, checked, common, compare, differences, published
from fastfcn_pl.tools.report.run_schema import CONFIG
from fastfcn_pl.tools.report.runs import Run, find
from fastfcn_pl.tools.report.tables import class_table, result_table, run_table

LEARNED = "## What was learned"
_NOT_YET = "Not written yet."
_COSTS = {"latency_ms": "latency, ms", "gmacs": "GMACs", "peak_mib": "peak memory, MiB"}
_COMMANDS = 8
"""The most that are shown."""


def write(arguments: Sequence[Path], output: Path) -> list[Path]:
    """Write the page about the runs in the folders among `arguments` into `output`; return its HTML and its Markdown.

    A study's YAML file is taken, too: its question and the published numbers, which runs have not been compared with
    yet. The page is named after the study, where all runs are of one. What a person wrote under `LEARNED` in the
    Markdown is kept.
    """
    studies = {
        path.stem: read_yaml(path, CONFIG) for path in arguments if path.suffix in (".yaml", ".yml") and path.is_file()
    }
    runs = find([path for path in arguments if path.stem not in studies or path.is_dir()])
    names = list(dict.fromkeys([*(run.study for run in runs), *studies]))
    name = _file_name(names[0]) if len(names) == 1 else "report"
    page = output / f"{name}.md"
    learned = _learned(page)
    about = _about(name, runs, studies, learned)
    folder = output / name
    for comparison in about["comparisons"]:
        for file, content in comparison["files"].items():
            with atomic_write(folder / file) as hidden:
                hidden.write_bytes(content)
    written = []
    for suffix in ("html", "md"):
        path = output / f"{name}.{suffix}"
        with atomic_write(path) as hidden:
            hidden.write_text(_template(suffix).render(about, folder=name) + "\n")
        written.append(path)
    return written


def _template(suffix: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=suffix == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["plain"] = _markdown
    environment.filters["cell"] = lambda text: _markdown(text).replace("|", "\\|")
    environment.filters["code"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    environment.filters["paragraphs"] = lambda text: re.split(r"\n\s*\n", str(text))
    return environment.get_template(f"page.{suffix}.j2")


def _markdown(text: Any) -> str:
    """Return a text of a run for one line of Markdown, which would take it for a tag, a link or the end of a block."""
    line = " ".join(str(text).splitlines())
    return line.replace("<", "&lt;").replace("](", "]\\(").replace("][", "]\\[").replace("```", "` ` `")


def _file_name(study: str) -> str:
    """Return the name of a study for a file in the folder of the page, whatever a run says that it is called."""
    return re.sub(r"[^\w.\- ]+", "_", study)[:100].strip(". ") or "report"


def _learned(page: Path) -> str:
    text = read_text(page) or ""
    return text.partition(LEARNED)[2].strip() if LEARNED in text else _NOT_YET


def _about(name: str, runs: Sequence[Run], studies: dict[str, dict[str, Any]], learned: str) -> dict[str, Any]:
    """Return what the templates show; runs of `benchmark`, which have no score, come behind those of `train`."""
    measured = [run for run in runs if run.entry_point == "benchmark"]
    everything, runs = runs, [run for run in runs if run.entry_point == "train"]
    questions = [run.config.get("question") for run in everything] + [
        study.get("question") for study in studies.values()
    ]
    commands = list(dict.fromkeys(run.command for run in everything))
    rows = published(runs)
    for study, content in studies.items():
        rows += [row for row in checked(content.get("published") or [], study) if row not in rows]
    comparisons = compare(runs)
    told = [row for comparison in comparisons for group in comparison.groups for row in group.published]
    missing = [row for row in rows if row not in told]
    open_runs = {run.state.kind for run in runs} - {"finished"}
    return {
        "name": name,
        "questions": [q for q in dict.fromkeys(questions) if q],
        "commands": commands[:_COMMANDS],
        "more_commands": len(commands) - len(commands[:_COMMANDS]),
        "common": common(everything) if everything else {},
        "differences": differences(everything),
        "count": len(everything),
        "states": {k: sum(run.state.kind == k for run in runs) for k in ("finished", "running", "silent", "failed")},
        "open": bool(open_runs),
        "comparisons": [
            *(_compared(i, comparison, missing if i == 0 else []) for i, comparison in enumerate(comparisons)),
            *costs.parts(measured),
        ],
        "unmeasured": result_table([], [], missing) if missing and not comparisons and not measured else None,
        "sources": list(dict.fromkeys(row["source"] for row in [*rows, *published(measured)] if row.get("source"))),
        "environment": _environment(everything),
        "learned": learned,
        "not_yet": _NOT_YET,
    }


def _compared(index: int, comparison: Comparison, missing: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the templates show of one comparison, and the files that the Markdown page has beside it."""
    groups = [group for group in comparison.groups if group.score is not None]
    pictured = [group for group in groups if any((group.best.folder / "overlays").glob("*.png"))]
    shown = pictured[: pictures.RUNS]
    charts = _charts(groups)
    samples = pictures.rows([group.best for group in shown])
    files = {f"{key}_{index}.svg": figures.alone(svg).encode() for key, (svg, _, _) in charts.items()}
    if samples:
        file = io.BytesIO()
        Image.fromarray(pictures.sheet(samples, [group.name for group in shown])).save(file, "JPEG", quality=85)
        files[f"samples_{index}.jpg"] = file.getvalue()
    return {
        "title": comparison.title,
        "table": result_table(comparison.groups, comparison.keys, missing),
        "more": None,
        "runs": run_table(comparison.groups),
        "classes": class_table(groups),
        "charts": [
            {"key": key, "svg": figures.inline(svg), "caption": caption, "file": f"{key}_{index}.svg", "label": label}
            for key, (svg, caption, label) in charts.items()
        ],
        "legend": [(group.name, *figures.style(i)) for i, group in enumerate(groups[: figures.NAMED])],
        "grey": max(0, len(groups) - figures.NAMED),
        "samples": [
            {
                "image": pictures.data_uri(row.image),
                "truth": pictures.data_uri(row.truth),
                "runs": [
                    (pictures.data_uri(p), pictures.data_uri(e)) if p is not None and e is not None else None
                    for p, e in zip(row.predictions, row.errors, strict=True)
                ],
                "colors": row.colors,
            }
            for row in samples
        ],
        "sampled": [group.name for group in shown],
        "unsampled": len(pictured) - len(shown),
        "files": files,
    }


def _charts(groups: Sequence[Group]) -> dict[str, tuple[str, str, str]]:
    """Return, by name, the SVG of each chart that `groups` give, what is to be said under it, and what it shows."""
    charts = {}
    for column, title in (("val/mIoU", "mIoU on val, %"), ("train/loss", "training loss")):
        found = [figures.Curve(group.name, [run.curve(column) for run in group.runs]) for group in groups]
        if any(len(run) > 1 for curve in found for run in curve.runs):  # a point is in the table
            key = "curves" if column == "val/mIoU" else "loss"
            charts[key] = (figures.curves(found, title, percent=key == "curves"), "", title)
    for key, label in _COSTS.items():
        measured = [group.best.cost["measured"] for group in groups if group.best.cost.get(key) is not None]
        if len({group.best.cost.get(key) for group in groups}) < 2 or not measured:
            continue
        how = max(dict.fromkeys(measured), key=measured.count)  # numbers taken elsewhere are no neighbours of these
        points = [_point(group, key) for group in groups]
        there = [p if group.best.cost["measured"] == how else None for group, p in zip(groups, points, strict=True)]
        svg, unnamed = figures.scatter(there, label)
        left_out = there.count(None)
        notes = ["The line is the Pareto front."] if len(figures.pareto(there)) > 1 else []
        notes += [f"There is no room for the names of {unnamed} points."] if unnamed else []
        notes += [f"{left_out} are left out: they were not measured {how}."] if left_out else []
        charts[key] = (svg, " ".join(notes), f"mIoU against {label}")
    return charts


def _point(group: Group, key: str) -> figures.Point | None:
    cost = group.best.cost.get(key)
    score = group.score
    if cost is None or score is None:
        return None
    return figures.Point(group.name, cost, score.mean, score.std, group.kind == "finished")


def _environment(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return commit, hardware, versions and time of the runs, each different value once, with how many runs have it."""
    found: dict[str, list[str]] = {}
    for key in ("commit", "processor", "versions", "world_size"):
        values = [_plain(run.about[key]) for run in runs if key in run.about]
        counts = {value: values.count(value) for value in dict.fromkeys(values)}
        several = len(counts) > 1
        found[key.replace("_", " ")] = [f"{v} ({n} runs)" if several else v for v, n in counts.items()]
    seconds = [run.seconds for run in runs if run.entry_point == "train" and run.seconds is not None]
    if seconds:
        total = str(timedelta(seconds=round(sum(seconds))))
        of = f" in {len(seconds)} runs" if len(seconds) > 1 else ""
        found["wall time"] = [f"{total} of training, validation included{of}"]
    return {key: values for key, values in found.items() if values}


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
