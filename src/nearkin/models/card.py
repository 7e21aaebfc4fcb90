"""A Model's README.md: a card in Markdown made from what the Model knows of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = ("recall@1", "in_train.recall@1", "map@r", "mrr", "nmi", "ami", "knn_accuracy")
USE = """```python
import nearkin as nk

model = nk.Model.load("DIR")
x = model.embed({example})  # (N, {dim}) float32
model.similarity(x, x)  # {similarity}: the larger, the nearer
```"""


def card(model: Any, timm: bool) -> str:
    """The card of a Model; `timm` says whether timm can build it."""
    row = model.provenance
    lines = ["---", f"library_name: {'timm' if timm else 'nearkin'}", "tags:"]
    lines += ["- nearkin", "- image-feature-extraction", "- metric-learning", "---"]
    lines += ["", f"# An embedding of {model.dim} dimensions", ""]
    lines += [*facts(model), "", use(model)]
    if timm:
        lines += ["", 'timm reads it too: `timm.create_model("local-dir:DIR", pretrained=True)`.']
    if results := table(row.get("metrics") or {}):
        lines += ["", "## Results", "", test_set(row.get("data") or {}), "", *results]
    if model.recipe:
        lines += ["", "## Recipe", "", "| field | value |", "|---|---|"]
        lines += [f"| {name} | {cell(value)} |" for name, value in model.recipe.items()]
    if versions := row.get("versions"):
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines += ["", "## Made with", "", named]
    return "\n".join(lines) + "\n"


def facts(model: Any) -> list[str]:
    """What a user must know, one line each."""
    p = model.preprocessing
    takes = (
        f"pictures, {p.width} x {p.height} pixels, as preprocess.json says"
        if p
        else "vectors, the features of a backbone that is not in this folder"
    )
    lines = [
        f"- takes: {takes}",
        f"- similarity: {model.similarity_name} (the larger, the nearer)",
        f"- identity: {model.identity}",
    ]
    if model.classes:
        lines.append(f"- trained on: {len(model.classes)} classes")
    return lines


def use(model: Any) -> str:
    example = '["a.jpg", "b.jpg"]' if model.preprocessing else "vectors"
    return USE.format(example=example, dim=model.dim, similarity=model.similarity_name)


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics of the last epoch that a reader looks for, in per cent."""
    last = metrics.get("last") or {}
    shown = [(name, last[name]) for name in SHOWN if isinstance(last.get(name), float)]
    if not shown:
        return []
    rows = [f"| {name} | {100 * value:.2f} |" for name, value in shown]
    return ["| metric | % |", "|---|---:|", *rows]


def test_set(data: Mapping[str, Any]) -> str:
    """What the results were measured on."""
    name = str(data.get("name", "")).partition(":")[0] or "its test set"
    images, classes = data.get("query_images"), data.get("test_classes")
    size = f", {images} queries of {classes} classes" if images and classes else ""
    variant = f" ({data['variant']})" if data.get("variant") else ""
    return f"Last epoch, on the test images of {name}{variant}{size}."


def cell(value: Any) -> str:
    """A value for a cell of a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ") if value not in ("", {}) else ""
