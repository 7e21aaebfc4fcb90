"""What a notebook shows of a value: a small table in HTML, in which all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def facts(title: str, found: Iterable[tuple[str, object]]) -> str:
    """A title over two columns, names and values; what is None or empty is left out.

    >>> "&lt;b&gt;" in facts("Model", [("backbone", "<b>"), ("loss", None)])
    True
    """
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in found
        if value is not None and str(value)
    ]
    return f"<table><caption>{escape(title)}</caption><tbody>{''.join(rows)}</tbody></table>"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A title over a table with column heads."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>" for row in rows
    )
    return (
        f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def share(value: float | None) -> str | None:
    """A share in 0..1 in per cent, as text.

    >>> share(0.9934)
    '99.3 %'
    """
    return None if value is None else f"{100 * value:.1f} %"
