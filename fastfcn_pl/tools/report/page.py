"""Report on runs: one self-contained HTML file, and Markdown with a folder of images."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from fastfcn_pl.config.schema import STUDIES_DIR
from fastfcn_pl.core.atomic_io import atomic_write
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.tools.report import costs, figures, pictures
from fastfcn_pl.tools.report.approximation import approximation_table
from fastfcn_pl.tools.report.claims import Claim, claim_table
from fastfcn_pl.tools.report.class_table import class_table
from fastfcn_pl.tools.report.diagnostics import diagnostic_tables
from fastfcn_pl.tools.report.files import read_text, read_yaml
from fastfcn_pl.tools.report.groups import Comparison, Group, check_published, common, compare, differences, published
from fastfcn_pl.tools.report.run_schema import CONFIG
from fastfcn_pl.tools.report.runs import Run, find_runs
from fastfcn_pl.tools.report.tables import Table, result_table, run_table
from fastfcn_pl.tools.report.verdicts import judge

LEARNED = "## What was learned"
_NOT_YET = "Not written yet."
_COSTS = {"latency_ms": "latency, ms", "gmacs": "GMACs", "peak_mib": "peak memory, MiB"}
_MAX_COMMANDS = 8


def write(arguments: Sequence[Path], output: Path) -> list[Path]:
    """Write the report on `arguments` to `output`; return the paths of the HTML and the Markdown file.

    Arguments are folders of runs, or YAML files: of studies, whose question and published results are shown even
    without a run, and of claims, which are tested like those in `experiments/claims`. If all runs belong to one study,
    the report is named after it. Text that a person wrote under `LEARNED` in the Markdown is kept.
    """
    contents = {
        path: read_yaml(path, CONFIG) for path in arguments if path.suffix in (".yaml", ".yml") and path.is_file()
    }
    studies = {path.stem: content for path, content in contents.items() if "statement" not in content}
    runs = find_runs([path for path in arguments if path not in contents])
    claim_files = [path for path, content in contents.items() if "statement" in content]
    shipped = sorted((STUDIES_DIR / "claims").glob("*.yaml"))
    claims = [Claim.read(path) for path in dict.fromkeys(path.resolve() for path in (*shipped, *claim_files))]
    names = list(dict.fromkeys([*(run.study for run in runs), *studies]))
    name = _file_name(names[0]) if len(names) == 1 else "report"
    context = _context(name, runs, studies, claims, _read_learned(output / f"{name}.md"))
    folder = output / name
    for section in context["comparisons"]:
        for file, content in section["files"].items():
            with atomic_write(folder / file) as hidden:
                hidden.write_bytes(content)
    written = []
    for suffix in ("html", "md"):
        path = output / f"{name}.{suffix}"
        with atomic_write(path) as hidden:
            hidden.write_text(_template(suffix).render(context, folder=name) + "\n")
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
    environment.filters["plain"] = _escape_markdown
    environment.filters["markdown"] = _markdown_table
    environment.filters["code"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    environment.filters["paragraphs"] = lambda text: re.split(r"\n\s*\n", str(text))
    return environment.get_template(f"page.{suffix}.j2")


def _markdown_table(table: Table, bold: bool) -> str:
    rows = [[f"**{cell.text}**" if cell.best and bold else cell.text for cell in row] for row in table.rows]
    header, *lines = (list(map(_escape_markdown, row)) for row in (table.header, *rows))
    return markdown_table(header, lines, table.numeric)


def _escape_markdown(text: Any) -> str:
    """Return text from a run as one line of Markdown, without tags, links and code fences."""
    line = " ".join(str(text).splitlines())
    return line.replace("<", "&lt;").replace("](", "]\\(").replace("][", "]\\[").replace("```", "` ` `")


def _file_name(study: str) -> str:
    """Return the name of a study as a safe file name, since a run may contain any name."""
    return re.sub(r"[^\w.\- ]+", "_", study)[:100].strip(". ") or "report"


def _read_learned(page: Path) -> str:
    """Return the text that a person wrote under `LEARNED` in an earlier report."""
    text = read_text(page) or ""
    return text.partition(LEARNED)[2].strip() if LEARNED in text else _NOT_YET


def _context(
    name: str, runs: Sequence[Run], studies: dict[str, dict[str, Any]], claims: Sequence[Claim], learned: str
) -> dict[str, Any]:
    """Return the variables of the templates. Runs of `benchmark`, which have no score, follow those of `train`."""
    benchmarks = [run for run in runs if run.entry_point == "benchmark"]
    trainings = [run for run in runs if run.entry_point == "train"]
    questions = [content.get("question") for content in [*(run.config for run in runs), *studies.values()]]
    commands = list(dict.fromkeys(run.command for run in runs))
    rows = published(trainings)
    for study, content in studies.items():
        rows += [row for row in check_published(content.get("published") or [], study) if row not in rows]
    comparisons = compare(trainings)
    matched = [row for comparison in comparisons for group in comparison.groups for row in group.published]
    unmatched = [row for row in rows if row not in matched]
    states = {k: sum(run.state.kind == k for run in trainings) for k in ("finished", "running", "silent", "failed")}
    return {
        "name": name,
        "questions": [q for q in dict.fromkeys(questions) if q],
        "commands": commands[:_MAX_COMMANDS],
        "more_commands": len(commands) - len(commands[:_MAX_COMMANDS]),
        "common": common(runs) if runs else {},
        "differences": differences(runs),
        "count": len(runs),
        "states": states,
        "open": states["finished"] < len(trainings),
        "comparisons": [
            *(_section(i, comparisons, unmatched if i == 0 else []) for i in range(len(comparisons))),
            *costs.cost_sections(benchmarks),
        ],
        "unmeasured": result_table([], [], unmatched) if unmatched and not comparisons and not benchmarks else None,
        "sources": list(dict.fromkeys(row["source"] for row in [*rows, *published(benchmarks)] if row.get("source"))),
        "environment": _environment(runs),
        "claims": claim_table(
            [claim for claim in claims if claim.study in {run.study for run in runs}], comparisons, runs
        ),
        "learned": learned,
        "not_yet": _NOT_YET,
    }


def _section(index: int, comparisons: Sequence[Comparison], unmatched: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the variables of one comparison for the templates, and the files that the Markdown page links to."""
    comparison = comparisons[index]
    groups = [group for group in comparison.groups if group.score is not None]
    with_overlays = [group for group in groups if any((group.best.folder / "overlays").glob("*.png"))]
    shown = with_overlays[: pictures.MAX_RUNS]
    judged = judge(comparison.groups)
    charts = _charts(groups, judged.intervals)
    samples = pictures.sample_rows([group.best for group in shown])
    files = {f"{key}_{index}.svg": figures.for_file(svg).encode() for key, (svg, _, _) in charts.items()}
    if samples:
        file = io.BytesIO()
        Image.fromarray(pictures.sheet(samples, [group.name for group in shown])).save(file, "JPEG", quality=85)
        files[f"samples_{index}.jpg"] = file.getvalue()
    return {
        "title": comparison.title,
        "table": result_table(comparison.groups, comparison.keys, unmatched, judged.best_is_shown),
        "more": approximation_table(comparison, comparisons),
        "verdicts": judged,
        "runs": run_table(comparison.groups),
        "classes": class_table(groups, judged.shown_classes),
        "diagnostics": diagnostic_tables(comparison.groups),
        "charts": [
            {"key": key, "svg": figures.for_html(svg), "caption": caption, "file": f"{key}_{index}.svg", "label": label}
            for key, (svg, caption, label) in charts.items()
        ],
        "legend": [(group.name, *figures.style(i)) for i, group in enumerate(groups[: figures.MAX_STYLED])],
        "grey": max(0, len(groups) - figures.MAX_STYLED),
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
        "unsampled": len(with_overlays) - len(shown),
        "files": files,
    }


def _charts(groups: Sequence[Group], intervals: Mapping[str, tuple[float, float]]) -> dict[str, tuple[str, str, str]]:
    """Return the SVG, the caption and a description of each chart, by name."""
    charts = {}
    for column, title in (("val/mIoU", "mIoU on val, %"), ("train/loss", "training loss")):
        group_curves = [figures.Curve(group.name, [run.curve(column) for run in group.runs]) for group in groups]
        if any(len(run) > 1 for curve in group_curves for run in curve.runs):  # single values are in the table
            key = "curves" if column == "val/mIoU" else "loss"
            charts[key] = (figures.curves(group_curves, title, percent=key == "curves"), "", title)
    for key, label in _COSTS.items():
        methods = [group.best.cost["measured"] for group in groups if group.best.cost.get(key) is not None]
        if len({group.best.cost.get(key) for group in groups}) < 2 or not methods:
            continue
        method = max(dict.fromkeys(methods), key=methods.count)  # other methods and devices are not comparable
        points = [
            _point(group, key, intervals.get(group.name)) if group.best.cost["measured"] == method else None
            for group in groups
        ]
        svg, unlabelled = figures.scatter(points, label)
        left_out = points.count(None)
        notes = ["The line is the Pareto front."] if len(figures.pareto(points)) > 1 else []
        notes += ["Bars are 95 % intervals over seeds and images."] if any(p and p.interval for p in points) else []
        notes += [f"{unlabelled} points have no label, for lack of space."] if unlabelled else []
        notes += [f"{left_out} are left out, since they were not measured {method}."] if left_out else []
        charts[key] = (svg, " ".join(notes), f"mIoU against {label}")
    return charts


def _point(group: Group, key: str, interval: tuple[float, float] | None) -> figures.Point | None:
    cost = group.best.cost.get(key)
    score = group.score
    if cost is None or score is None:
        return None
    return figures.Point(group.name, cost, score.mean, interval, group.kind == "finished")


def _environment(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return commit, hardware, versions and training time: the distinct values, with the number of runs of each."""
    environment: dict[str, list[str]] = {}
    for key in ("commit", "processor", "versions", "world_size"):
        counts = Counter(_format(run.metadata[key]) for run in runs if key in run.metadata)
        several = len(counts) > 1
        environment[key.replace("_", " ")] = [f"{v} ({n} runs)" if several else v for v, n in counts.items()]
    seconds = [run.seconds for run in runs if run.entry_point == "train" and run.seconds is not None]
    if seconds:
        total = str(timedelta(seconds=round(sum(seconds))))
        count = f" in {len(seconds)} runs" if len(seconds) > 1 else ""
        environment["wall time"] = [f"{total} of training, including validation{count}"]
    return {key: values for key, values in environment.items() if values}


def _format(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
