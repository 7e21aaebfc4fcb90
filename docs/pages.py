"""Makes pages of docs/results anew from the rows beside them: python docs/pages.py [NAME ...].

Nothing is run: a page whose rows are not all there is an error. Some 4 s a page.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from pathlib import Path

from nearkin.app.main import main
from nearkin.report import publishing
from nearkin.runs import executors

RESULTS = Path(__file__).parent / "results"


def command_of(page: Path) -> list[str]:
    """The words behind `nearkin` that the page says it was made by."""
    *_, command = re.findall(r"^    nearkin (study .*)$", page.read_text(), re.MULTILINE)
    return shlex.split(command)


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("a run of this page is missing beside it")


def make(page: Path) -> None:
    """Write one page and its pictures from its rows."""
    with tempfile.TemporaryDirectory() as out:
        main([*command_of(page), "--out", out, "--publish", str(RESULTS)])


if __name__ == "__main__":
    executors.run = executors.measure = refuse  # type: ignore[assignment]
    executors.there = lambda *_: None  # the data need not be here
    publishing.show = lambda *_: None  # nor is the HTML page wanted
    for found in sorted(RESULTS.glob("*.md")):
        if len(sys.argv) < 2 or found.stem in sys.argv[1:]:
            make(found)
