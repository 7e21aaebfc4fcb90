"""python -m benchmarks [--quick] [TOPIC...]: measure, print, and write docs/benchmarks.md.

The rows of a topic are kept in docs/results/benchmarks/TOPIC.json, with the machine and the day,
and the page is made from all such files: a topic measured again leaves the others as they were.
With --quick the sizes are small, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Row

TOPICS = {
    "evaluation": "benchmarks.evaluation",
    "losses": "benchmarks.losses",
    "proxies": "benchmarks.proxies",
    "graphs": "benchmarks.graphs",
    "heads": "benchmarks.heads",
    "images": "benchmarks.images",
    "processes": "benchmarks.processes",
    "scale": "benchmarks.scale",
    "large": "benchmarks.large",
    "search": "benchmarks.search",
    "tail": "benchmarks.tail",
    "training": "benchmarks.training",
}
LONG = ("large",)
"""Topics that take hours, and are measured where they are asked for by name."""
DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = ("case", "ours", "peer", "its time", "ours / peer", "goal", "memory", "its memory", "")


def main() -> None:
    """Run the topics asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    arguments = parser.parse_args()
    if unknown := [topic for topic in arguments.topics if topic not in TOPICS]:
        parser.error(f"unknown topic {unknown[0]!r}; there are {', '.join(TOPICS)}")
    for topic in arguments.topics or [topic for topic in TOPICS if topic not in LONG]:
        module = import_module(TOPICS[topic])
        rows = list(module.rows(arguments.quick))
        show(module.TITLE, rows)
        if not arguments.quick:
            keep(topic, module.TITLE, rows)
    if not arguments.quick:
        (DOCS / "benchmarks.md").write_text(page())


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of COLUMNS; the last says whether its goals are reached."""
    goals = [f"≤ {row.goal:.2f}"] if row.goal is not None else []
    goals += [f"≤ {duration(row.budget)}"] if row.budget is not None else []
    goals += [f"≤ {size(row.limit)}"] if row.limit is not None else []
    return (
        row.what + (f" ({row.note})" if row.note else ""),
        duration(row.ours),
        row.peer,
        "" if row.theirs is None else duration(row.theirs),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        ", ".join(goals),
        "" if row.memory is None else size(row.memory),
        "" if row.peer_memory is None else size(row.peer_memory),
        {None: "", True: "reached", False: "missed"}[row.reached],
    )


def duration(seconds: float) -> str:
    """Three digits, and all of whole seconds: 1,930 s, 12.3 s, 4.56 ms."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def size(amount: float) -> str:
    """Bytes in MB or GB."""
    return f"{amount / 1e9:.2f} GB" if amount >= 1e9 else f"{amount / 1e6:.0f} MB"


def show(title: str, rows: Iterable[Row]) -> None:
    """The table of one topic in the terminal."""
    table = Table(*COLUMNS, title=title)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=max(Console().width, 160)).print(table)


def keep(topic: str, title: str, rows: Iterable[Row]) -> None:
    """Store the rows of one topic with the machine that gave them."""
    value = {
        "title": title,
        "date": date.today().isoformat(),
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
    }
    path = DOCS / "results" / "benchmarks" / f"{topic}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def page() -> str:
    """docs/benchmarks.md, from every stored topic in the order of TOPICS."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Peers run beside us in the same process, in turns; times are",
        "medians; memory is the peak of a process that does nothing else. A ratio below 1 is ours.",
        "Large sizes are measured once each, by processor time; memory is what the work adds,",
        "its goal 1.1 of what was allowed, and the answers.",
    ]
    for topic in TOPICS:
        path = DOCS / "results" / "benchmarks" / f"{topic}.json"
        if path.exists():
            lines += section(topic, json.loads(path.read_text()))
    return "\n".join(lines) + "\n"


def section(topic: str, value: dict) -> list[str]:
    """One stored topic as Markdown."""
    table = [COLUMNS, ("---",) * len(COLUMNS), *(cells(Row(**row)) for row in value["rows"])]
    return [
        "",
        f"## {value['title']}",
        "",
        f"`python -m benchmarks {topic}`, {value['date']}, {value['machine']}",
        "",
        *(f"| {' | '.join(line)} |" for line in table),
    ]


def machine() -> str:
    """Processor, cores, GPU and the versions that matter."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    packages = ("torch", "faiss-cpu", "pytorch-metric-learning", "scikit-learn")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    python = f"Python {platform.python_version()}"
    return f"{processor()}, {os.cpu_count()} cores{gpu}; {python}, {versions}"


def processor() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().split("\n") if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
