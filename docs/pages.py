"""Makes pages of docs/results anew from the rows beside them: python docs/pages.py [NAME ...].

Nothing is run: a page whose rows are not all there is an error. Some 4 s a page. Then their
overview, docs/results.md: python docs/pages.py none makes that alone.
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

sys.path.append(str(Path(__file__).parent / "site"))
from data_names import made_on

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


def overview() -> str:
    """Every page with the sentences that it begins with, by study."""
    studies: dict[str, list[str]] = {}
    for page in sorted(RESULTS.glob("*.md")):
        text = page.read_text()
        title = text.partition("\n")[0].removeprefix("# ")
        answer = " ".join(re.findall(r"^\*\*(.*[.!?])\*\* *$", text, re.MULTILINE))
        data = made_on(page.stem.removeprefix(f"{command_of(page)[1]}-"))
        studies.setdefault(title, []).append(f"- [{data}](results/{page.name}): {answer}")
    parts = [f"## {title}\n\n" + "\n".join(lines) for title, lines in studies.items()]
    return "\n\n".join([HEAD, *parts]) + "\n"


HEAD = """# Results

What each study found, in the sentences with which its page begins. The page has the picture, the
table of ranks, the findings with their tests, every run with its recipe, and the command that makes
it again. *Nobody is surely best* means that a paired test over seeds, corrected for the number of
methods, leaves more than one of them in question. *Stored features* are those of EfficientNet-Lite0
at 224 px, of which a head alone is trained. `python docs/pages.py` writes this overview."""


if __name__ == "__main__":
    executors.run = executors.measure = refuse  # type: ignore[assignment]
    executors.there = lambda *_: None  # the data need not be here
    publishing.show = lambda *_: None  # nor is the HTML page wanted
    for found in sorted(RESULTS.glob("*.md")):
        if len(sys.argv) < 2 or found.stem in sys.argv[1:]:
            make(found)
    (RESULTS.parent / "results.md").write_text(overview())
