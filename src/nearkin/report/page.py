"""The page of a study: one HTML file that needs nothing else, and the same as Markdown.

It reads an answer and rows, and trains nothing. What comes from file and class names is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np

from nearkin.answers import (
    FINDINGS,
    Answer,
    BatchGraphs,
    Figure,
    Gallery,
    Lines,
    Maps,
    says_something,
)
from nearkin.files import write_whole
from nearkin.report import batch_graphs, canvas, glossary, pictures, plots, standard, tables
from nearkin.report.items import Items, picture_uri, sheet
from nearkin.report.views import (
    CLASS_COLOURS,
    OTHER,
    Answers,
    Panel,
    Question,
    answers,
    panels,
    tags,
)
from nearkin.runs.recipe import DEFAULTS
from nearkin.runs.row import Stored
from nearkin.studies.study import Case

TILE = 96  # pixels of a picture in a gallery
GRAIN = 4  # decimals of a point's place in its square


def write_page(
    answer: Answer,
    rows: Mapping[Case, Stored],
    folder: Path | str,
    store_folder: Path | str,
    *,
    name: str = "report",
    command: str = "",
) -> Path:
    """Write folder/NAME.html, and beside it what write_markdown writes; the HTML file's path.

    Args:
        answer: what the study's answer(rows) gave.
        rows: every row that it was made from, under its case.
        folder: where to write.
        store_folder: where the rows' files are.
        name: of the files; as a rule the study's.
        command: what made the rows.
    """
    folder, store, atlas = Path(folder), Path(store_folder), Atlas()
    values = contents(answer, rows, command)
    figures = [html_figure(figure, store, atlas) for figure in values.pop("figures")]
    text = template("page.html").render(**values, figures=figures, maps=atlas.values())
    write_markdown(answer, rows, folder, store, name=name, command=command)
    return write(folder / f"{name}.html", text)


def write_markdown(
    answer: Answer,
    rows: Mapping[Case, Stored],
    folder: Path | str,
    store_folder: Path | str,
    *,
    name: str = "report",
    command: str = "",
) -> Path:
    """Write folder/NAME.md with its pictures in folder/NAME/.

    The arguments are those of write_page; the result is the Markdown file's path.
    """
    folder, values = Path(folder), contents(answer, rows, command)
    if (folder / name).is_symlink():  # pictures would be written and removed elsewhere
        raise ValueError(f"{folder / name}: wanted a folder for pictures, got a link: remove it")
    shown, earlier = [], pictures.drawings(folder / name)
    for number, figure in enumerate(values.pop("figures"), 1):
        path = pictures.save(
            figure, folder / name / f"figure-{number}", Path(store_folder), earlier
        )
        if path:
            shown.append((figure.title, path, figure.note))
    for old in set((folder / name).glob("figure-*")) - {path for _, path, _ in shown}:
        old.unlink()  # of an earlier page, which had more
    links = [(title, quote(f"{name}/{path.name}"), note) for title, path, note in shown]
    return write(folder / f"{name}.md", template("page.md").render(**values, figures=links))


def write(path: Path, text: str) -> Path:
    """Write a text file whole; what UTF-8 lacks, as of names that are no text, is escaped."""
    content = text.strip().encode(errors="backslashreplace") + b"\n"
    write_whole(path, lambda file: file.write(content))
    return path


@lru_cache
def template(name: str) -> jinja2.Template:
    """A template: what it prints is escaped in HTML, and by the filter `md` in Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "as_table": tables.html,
        "as_markdown": tables.markdown,
        "md": tables.markdown_text,
        "plain": plain,
        "unbroken": unbroken,
    }
    return environment.get_template(name)


def plain(value: object) -> str:
    """A value of a recipe as text: options as k=v, nothing as a dash."""
    if isinstance(value, Mapping):
        value = " ".join(f"{k}={v}" for k, v in value.items())
    return tables.MISSING if value in ("", None) else str(value)


def unbroken(text: str) -> str:
    """The text with its numbers kept beside their units, wherever a line ends.

    >>> unbroken("R@1 57.3 % (p < 0.001)").split(" ")
    ['R@1', '57.3\xa0%', '(p\xa0<\xa00.001)']
    >>> unbroken("64-D"), unbroken("n-tuple")
    ('64‑D', 'n‑tuple')
    """
    text = re.sub(r"(?<=\d)-D\b", "\u2011D", text)
    text = re.sub(r"\b([a-zA-Z\d])-(?=[a-zA-Z])", "\\1\u2011", text)
    text = re.sub(r"(?<=\d) (?=%|points\b|\u00b1)", "\u00a0", text)
    return re.sub(r"p ([<=\u2265]) (?=\d)", "p\u00a0\\1\u00a0", text)


def contents(answer: Answer, rows: Mapping[Case, Stored], command: str) -> dict:
    """What both templates print."""
    named = standard.labelled(rows)
    ordered = [row for group in named.values() for row in group]
    common, table = standard.shared(ordered), standard.runs(ordered, named)
    has_curves = any(isinstance(f, Lines) and f.x == "epoch" for f in answer.figures)
    curves = None if has_curves else standard.curves(ordered, named)
    findings = [finding for finding in answer.findings if finding.text not in answer.summary]
    return {
        "answer": answer,
        "figures": [*answer.figures, *([curves] if curves else [])],
        "findings": findings[:FINDINGS],
        "more_findings": findings[FINDINGS:],
        "words": glossary.used(answer),
        "tables": [*answer.tables, *filter(says_something, [standard.selection(ordered, named)])],
        "rows": ordered,
        "diverged": [
            (name, row)
            for name, group in named.items()
            for row in group
            if row.status == "diverged"
        ],
        "runs": table,
        "heads": tables.heads(table),
        "kinds": tables.kinds(table),
        "cells": tables.cells(table),
        "recipes": [standard.own(row, common) for row in ordered],
        "commands": [standard.command(row.recipe) for row in ordered],
        "common": {k: v for k, v in common.items() if v != DEFAULTS[k]},
        "facts": standard.facts(rows.values()),
        "command": command,
    }


class Atlas:
    """All maps of a page, as the script draws them; items shown by several maps once.

    A set is the items that maps of one data set share: their classes, titles and pictures.
    """

    def __init__(self) -> None:
        self.maps: list[dict] = []
        self.sets: dict[str, dict] = {}

    def add(self, panel: Panel) -> int:
        """Take a map in; its number."""
        name = panel.items.fingerprint()
        if name not in self.sets:
            self.sets[name] = self.items(panel.items)
        self.maps.append(
            {
                "set": list(self.sets).index(name),
                "points": np.round(panel.points, GRAIN).ravel().tolist(),
                "ruler": panel.ruler,
                "labels": [(c, round(x, GRAIN), round(y, GRAIN)) for c, x, y in panel.labels],
            }
        )
        return len(self.maps) - 1

    def items(self, items: Items) -> dict:
        """A set as plain data."""
        uri, across = ("", 0) if items.pictures is None else sheet(items.pictures)
        return {
            "classes": items.classes,
            "tags": tags(items.classes),
            "labels": items.labels.tolist(),
            "titles": [items.title(i) for i in range(len(items.labels))],
            "sheet": uri,
            "across": across,
        }

    def values(self) -> dict:
        """As plain data."""
        sets = list(self.sets.values())
        return {"colours": CLASS_COLOURS, "other": OTHER, "maps": self.maps, "sets": sets}


def html_figure(figure: Figure, store: Path, atlas: Atlas) -> dict:
    """What the page's template prints of a figure."""
    shown = {"kind": type(figure).__name__.lower(), "title": figure.title, "note": figure.note}
    if isinstance(figure, Maps):
        return shown | {
            "wide": True,
            "maps": [html_map(view, atlas) for view in panels(figure, store)],
        }
    if isinstance(figure, Gallery):
        return shown | {"wide": True} | html_gallery(answers(figure, store))
    drawn = (
        batch_graphs.svg(figure, store) if isinstance(figure, BatchGraphs) else plots.svg(figure)
    )
    points = float(drawn.split('width="', 1)[1].split("pt", 1)[0])
    return shown | {
        "svg": canvas.themed(drawn),
        "points": points,
        "wide": points > 80 * canvas.WIDE,
    }


def html_map(view: Panel | str, atlas: Atlas) -> dict:
    if isinstance(view, str):
        return {"name": view, "number": None}
    return {"name": view.name, "caption": view.caption, "number": atlas.add(view)}


def html_gallery(view: Answers | None) -> dict:
    """The tiles of wrong and of right answers, and how many of the items were right."""
    if view is None:
        return {"answers": None}
    return {
        "answers": [(name, [tiles(view.items, q) for q in group]) for name, group in view.groups()],
        "summary": view.summary(),
        "confused": view.confused,
    }


def tiles(items: Items, question: Question) -> list[dict]:
    """The item asked about, then those found."""
    outcomes = ["asked", *("right" if right else "wrong" for right in question.right)]
    return [
        {
            "outcome": outcome,
            "kind": items.kind(i),
            "title": items.title(i),
            "picture": "" if items.pictures is None else picture_uri(items.pictures[i], TILE),
        }
        for outcome, i in zip(outcomes, (question.item, *question.found), strict=True)
    ]
