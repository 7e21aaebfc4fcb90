"""Docstrings of Nearkin, which are plain text, as reStructuredText and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc

FIELDS = ("Args", "Returns", "Raises", "Yields")


@dataclass(frozen=True)
class Block:
    """A part of a docstring: "text", "formula", "example", "list" or "fields"."""

    kind: str
    lines: tuple[str, ...]
    title: str = ""

    def entries(self) -> list[tuple[str, str]]:
        """Of fields: name and text of each."""
        found: list[tuple[str, str]] = []
        for line in self.lines:
            name, colon, text = line.partition(":")
            if not line.startswith(" ") and colon and re.fullmatch(r"[\w*, .]+", name):
                found.append((name, text.strip()))
            elif found:
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}".strip())
            else:
                found.append(("", line.strip()))
        return found


def blocks(doc: str) -> Iterator[Block]:
    """The parts of a docstring, in their order."""
    pending: list[list[str]] = []
    for part in re.split(r"\n\s*\n", cleandoc(doc)):
        pending.append(part.splitlines())
    i = 0
    while i < len(pending):
        lines = pending[i]
        i += 1
        head = lines[0].rstrip(":")
        if lines[0].endswith(":") and head in FIELDS:
            body = lines[1:]
            while i < len(pending) and pending[i][0].startswith("    "):
                body += pending[i]
                i += 1
            yield Block("fields", tuple(line.removeprefix("    ") for line in body), head)
        elif lines[0].lstrip().startswith(">>>"):
            yield Block("example", tuple(cleandoc("\n".join(lines)).splitlines()))
        elif all(line.startswith("    ") for line in lines):
            while i < len(pending) and all(line.startswith("    ") for line in pending[i]):
                lines = [*lines, "", *pending[i]]
                i += 1
            yield Block("formula", tuple(line.removeprefix("    ") for line in lines))
        elif re.match(r"[-*] |\d+\. ", lines[0]):
            yield Block("list", tuple(lines))
        elif any(line.startswith("  ") for line in lines[1:]):
            yield Block("formula", tuple(lines))
        else:
            yield Block("text", tuple(lines))


def to_rst(doc: str) -> str:
    """reStructuredText that shows a docstring as it was meant."""
    parts = []
    for block in blocks(doc):
        match block.kind:
            case "formula":
                indented = [f"   {line}".rstrip() for line in block.lines]
                parts.append(".. code-block:: text\n\n" + "\n".join(indented))
            case "example":
                parts.append("\n".join(block.lines))
            case "fields" if block.title == "Args":
                entries = (f":param {n}: {rst_text(t)}" for n, t in block.entries())
                parts.append("\n".join(entries))
            case "fields":
                kind = {"Returns": "returns", "Yields": "yields", "Raises": "raises"}[block.title]
                text = " ".join(f"{n}: {t}" if n else t for n, t in block.entries())
                field = "raises ValueError" if kind == "raises" else kind
                parts.append(f":{field}: {rst_text(text.removeprefix('ValueError: '))}")
            case _:
                parts.append(rst_text("\n".join(block.lines)))
    return "\n\n".join(parts) + "\n"


def rst_text(text: str) -> str:
    """Plain text with `code` as reStructuredText."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a lonely tick
        pieces = [text.replace("`", "'")]
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([\\*|_])", r"\\\1", pieces[i])
    pieces[0] = re.sub(r"^(\w\w?)([.)])", r"\1\\\2", pieces[0])  # no list that begins with C.
    return "".join(p if i % 2 == 0 else f"``{p}``\\ " for i, p in enumerate(pieces))


def to_markdown(doc: str) -> str:
    """Markdown that shows a docstring as it was meant."""
    parts = []
    for block in blocks(doc):
        match block.kind:
            case "formula":
                parts.append("\n".join(["```text", *block.lines, "```"]))
            case "example":
                parts.append("\n".join(["```pycon", *block.lines, "```"]))
            case "fields":
                entries = [
                    f"- **{n}**: {md_text(t)}" if n else md_text(t) for n, t in block.entries()
                ]
                parts.append(f"**{block.title}**\n\n" + "\n".join(entries))
            case _:
                parts.append(md_text("\n".join(block.lines)))
    return "\n\n".join(parts) + "\n"


def md_text(text: str) -> str:
    """Plain text with `code` as Markdown."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        pieces = [text.replace("`", "'")]
    for i in range(0, len(pieces), 2):
        escaped = re.sub(r"([\\*\[\]|~#$])|(?<!\w)_|_(?!\w)", r"\\\g<0>", pieces[i])
        pieces[i] = escaped.replace("<", "&lt;").replace(">", "&gt;")
    return "`".join(pieces)
