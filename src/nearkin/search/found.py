"""What a search found, as a page: each query with the photographs that are nearest to it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from nearkin.search.intake import thumbnail
from nearkin.search.photos import file_of
from nearkin.search.values import Answer

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; overflow-wrap: anywhere; }
section { border-top: 1px solid #8886; padding: 0.5rem 0 1rem; }
.row { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
figure { margin: 0; min-width: 0; }
img { aspect-ratio: 1; background: #8882; border-radius: 0.4rem; object-fit: contain; width: 100%; }
.query img { outline: 2px solid #0072b2; }
figcaption { overflow-wrap: anywhere; }
.none { aspect-ratio: 1; background: #8882; border-radius: 0.4rem; }
small { display: block; opacity: 0.8; }
"""


def page(index: Any, answers: Sequence[Answer]) -> str:
    """One HTML text that asks for nothing else: thumbnails, labels, similarities."""
    paths = sorted({hit.path for answer in answers for hit in answer.hits})
    items = index.store.scan(["path", "thumbnail"], None, paths).to_pylist()
    small = {row["path"]: row["thumbnail"] for row in items}
    parts = [section(answer, small, index.similarity_name) for answer in answers]
    title = f"Found in {escape(index.path.name)}"
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</title><style>{STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{''.join(parts)}</main></body></html>"
    )


def section(answer: Answer, small: dict[str, bytes | None], similarity: str) -> str:
    """A query and its hits."""
    figures = [figure(thumbnail(file_of(answer.query)), "searched", "", "query")]
    figures += [
        figure(
            small.get(hit.path),
            hit.label or "no label",
            f"{similarity} {hit.similarity:.4f}",
            name=Path(hit.path).name,
        )
        for hit in answer.hits
    ]
    title = f"<h2>{escape(Path(answer.query).name)}: {escape(answer.verdict)}</h2>"
    return f'<section>{title}<div class="row">{"".join(figures)}</div></section>'


def figure(picture: bytes | None, label: str, note: str, kind: str = "", name: str = "") -> str:
    """A picture with what is known of it."""
    lines = "".join(f"<small>{escape(text)}</small>" for text in (note, name) if text)
    shown = '<div class="none"></div>'
    if picture:
        source = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        shown = f'<img alt="{escape(name or label)}" src="{source}">'
    return (
        f'<figure class="{kind}">{shown}'
        f"<figcaption><b>{escape(label)}</b>{lines}</figcaption></figure>"
    )
