"""The model card of a network on the Hugging Face Hub: its scores, data, cost and licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from fastfcn_pl import __version__
from fastfcn_pl.core.tables import markdown_table
from fastfcn_pl.core.types import DatasetSpec
from fastfcn_pl.engine import scoring
from fastfcn_pl.evaluation.formatting import percent

_PARTS = {"backbone": "model/backbone", "neck": "model/neck", "head": "model/head"}


def model_card(repository: str, spec: DatasetSpec, results: Mapping[str, Any] | None, license: str) -> str:
    """Return the card as Markdown, with `results` as `results.json` of a run or of `evaluate` holds them."""
    name = repository.partition("/")[2]
    lines = [f"# {name}", "", _summary(spec, results or {}), "", "## Use", "", _USE.format(repository=repository)]
    if results is not None:
        lines += ["## Scores", "", scoring.headline(dict(results)) + ".", "", _classes(dict(results)), ""]
        lines += ["## Cost and training", "", _facts(results), ""]
    else:
        lines += ["## Scores", "", "Not scored yet.", "", "Classes: " + ", ".join(spec.classes) + ".", ""]
    lines += ["## Licence", "", f"{license} for the weights. The terms of the training data apply to them as well."]
    return f"---\n{_metadata(name, results, license).to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"


_USE = """```python
import fastfcn_pl

labels = fastfcn_pl.Predictor("{repository}")("photo.jpg")
```

`python -m fastfcn_pl.evaluate checkpoint={repository} data.root=<dir>` scores it again.
"""


def _summary(spec: DatasetSpec, results: Mapping[str, Any]) -> str:
    choices = results.get("choices") or {}
    parts = [f"{part} `{choices[group]}`" for part, group in _PARTS.items() if group in choices]
    network = f" ({', '.join(parts)})" if parts else ""
    return (
        f"A semantic segmentation network{network} for the {spec.num_classes} classes of `{spec.name}`, trained with "
        f"[fastfcn_pl](https://github.com/fastfcn-pl/fastfcn_pl) {__version__}."
    )


def _classes(results: dict[str, Any]) -> str:
    return markdown_table(["class", *scoring.COLUMNS], scoring.class_rows(results))


def _facts(results: Mapping[str, Any]) -> str:
    """Return a table of what the results say about protocol, cost and training."""
    cost = results.get("cost") or {}
    size = "x".join(map(str, cost.get("size") or ()))
    millions = None if results.get("parameters") is None else f"{results['parameters'] / 1e6:.2f} M"
    options = ", ".join(f"{key}={value}" for key, value in (results.get("protocol_options") or {}).items())
    rows = {
        "scored images": results.get("images"),
        "protocol": f"{results['protocol']} ({options})" if options else results["protocol"],
        "parameters": millions,
        f"GMACs at {size}": results.get("gmacs") and f"{results['gmacs']:.2f}",
        f"latency at {size}, ms": cost.get("latency_ms") and f"{cost['latency_ms']:.1f} ({results.get('processor')})",
        "data": results["data"],
        "steps": results.get("steps"),
        "seed": results.get("seed"),
        "commit": results.get("commit"),
    }
    rows |= {f"{name} version": text for name, text in (results.get("versions") or {}).items()}
    known = [(name, str(value)) for name, value in rows.items() if value is not None]
    return markdown_table(["", "value"], known)


def _metadata(name: str, results: Mapping[str, Any] | None, license: str) -> ModelCardData:
    scores = []
    if results is not None and results.get("mIoU") is not None:
        score = EvalResult(
            task_type="image-segmentation",
            dataset_type=results["data"],
            dataset_name=results["data"],
            dataset_split=results["split"],
            metric_type="mean_iou",
            metric_name=f"mIoU, protocol {results['protocol']}",
            metric_value=float(percent(results["mIoU"])),
        )
        scores.append(score)
    return ModelCardData(
        license=license,
        library_name="fastfcn_pl",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "fastfcn", "pytorch"],
        model_name=name,
        eval_results=scores or None,
    )
