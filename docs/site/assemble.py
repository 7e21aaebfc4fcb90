"""Gathers the sources of the documentation site: python docs/site/assemble.py FOLDER.

What is written by hand comes from docs/site and docs; loss cards, "which loss", the command line
and the API reference are made here, from docstrings, registries, the parser and published rows. A
file is written only where it changes, so that Sphinx builds anew no more than it must.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path

import cards
import peers
from data_names import made_on
from docstrings import md_text

import nearkin
from nearkin.app.arguments import description, parser_of
from nearkin.app.main import COMMANDS
from nearkin.names import resolve

SITE = Path(__file__).parent
DOCS, ROOT = SITE.parent, SITE.parents[1]
AT_ROOT = {
    "LOG.md": "log.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
API = {
    "nearkin": "Everything that most programs need, under `import nearkin as nk`.",
    "nearkin.losses": "Losses, miners and what goes around them.",
    "nearkin.graphs": "Graphs of a batch: builders, layers, refiners.",
    "nearkin.closed": "Closed forms, as functions and as estimators of scikit-learn.",
    "nearkin.measure": "Metrics, neighbours, intervals.",
    "nearkin.data": "Data sets, own data, batches.",
    "nearkin.models": "Backbones.",
}


class Sources:
    """The folder of sources, in which what is not written again is removed at the end."""

    def __init__(self, folder: Path):
        self.folder, self.written = folder, set[Path]()

    def write(self, name: str, content: str | bytes) -> None:
        path = self.folder / name
        data = content.encode() if isinstance(content, str) else content
        self.written.add(path)
        if path.is_file() and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove_others(self) -> None:
        """Remove what an earlier build left; of the gallery Sphinx takes care."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            mine = path.relative_to(self.folder).parts[0] != "gallery"
            if path.is_file() and mine and path not in self.written:
                path.unlink()


def assemble(folder: Path) -> None:
    """Write all sources."""
    sources = Sources(folder)
    for path in sorted(SITE.rglob("*")):
        inside = path.relative_to(SITE)
        if inside.name == "about.md":
            continue  # below, with the pages of docs that no other page names
        if path.suffix == ".md" or (inside.parts[0] == "_static" and path.is_file()):
            sources.write(str(inside), path.read_bytes())
    for path in sorted(DOCS.glob("*.md")):
        sources.write(path.name, linked(path.read_text(), ""))
    by_hand = "\n".join(path.read_text() for path in SITE.rglob("*.md"))
    others = [
        p.stem
        for p in sorted(DOCS.glob("*.md"))
        if not re.search(rf"^(../)?{p.stem}$", by_hand, re.M)
    ]
    about = (SITE / "about.md").read_text()
    sources.write(
        "about.md",
        about.replace("\nlicences\n", "\nlicences\n" + "".join(f"{o}\n" for o in others)),
    )
    for path in sorted((DOCS / "results").rglob("*")):
        if path.suffix == ".md":
            sources.write(f"results/{path.name}", linked(titled(path), "../"))
        elif path.suffix in (".svg", ".png"):
            sources.write(str(path.relative_to(DOCS)), path.read_bytes())
    for name, target in AT_ROOT.items():
        if (ROOT / name).is_file():
            sources.write(target, linked((ROOT / name).read_text(), ""))
    sources.write("command-line.md", command_line())
    for name, first in API.items():
        sources.write(f"api/{name.replace('.', '-')}.md", api(name, first))
    sources.write("migration/pytorch-metric-learning.md", peers.pml_page())
    sources.write("migration/metric-learn.md", peers.metric_learn_page())
    for name, content in cards.pages().items():
        sources.write(name, content)
    sources.remove_others()


def titled(page: Path) -> str:
    """A page of results with its data in its title, by which lists tell it from others."""
    text = page.read_text()
    *_, study = re.findall(r"^    nearkin study (\S+)", text, re.MULTILINE)
    data = made_on(page.stem.removeprefix(study).removeprefix("-"))
    title, _, rest = text.partition("\n")
    return f"{title} ({data})\n{rest}" if data else text


def linked(text: str, up: str) -> str:
    """The text with links that hold on the site: files at the root have pages of their own."""
    for name, target in AT_ROOT.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(name)}(#[\w-]*)?\)", rf"]({up}{target}\1)", text)
    text = re.sub(r"\]\((?:\.\./)*docs/([^)]*)\)", rf"]({up}\1)", text)
    return re.sub(
        r"\[([^\]]*)\]\((?:\.\./)*(?:src|tests|examples|README|LICENSE|CITATION)[^)]*\)",
        r"\1",
        text,
    )


def command_line() -> str:
    """The page of the command line, from the parser itself."""
    parts = [
        "# The command line",
        "`nearkin COMMAND --help` prints what stands here. `nearkin completion bash`, `zsh` or "
        "`fish` prints a script by which that shell completes commands, flags and names.",
    ]
    for name, entry in COMMANDS.items():
        command = resolve(entry)
        text, _, examples = description(command).partition("examples:\n")
        parser = parser_of(name, command)
        parts += [f"## nearkin {name}", md_text(text.strip())]
        lines = [line.strip() for line in examples.splitlines()]
        parts.append("\n".join(["```bash", *lines, "```"]))
        for group in parser._action_groups:
            rows = [row(action) for action in group._group_actions if action.dest != "help"]
            if rows:
                head = f"| {group.title} | what it is |\n|---|---|"
                parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts) + "\n"


def row(action) -> str:
    """A flag as a row of a table."""
    words = ", ".join(action.option_strings) or str(action.metavar)
    value = "" if action.nargs == 0 or not action.option_strings else f" {action.metavar}"
    text = md_text((action.help or "").replace("%%", "%"))
    return f"| `{words}{value}` | {text} |".replace("\n", " ")


def api(name: str, first: str) -> str:
    """The page of a module's public names, for autodoc."""
    module = resolve(f"{name}:")
    lines = [f"# {name}", first, "```{eval-rst}"]
    wings = (*nearkin.WINGS, "verify")
    for public in public_names(module, name):
        if public in wings if name == "nearkin" else public in nearkin.NAMES:
            continue  # a wing has a page of its own, and what `nk` offers stands there
        thing = getattr(module, public)
        if inspect.isclass(thing):
            lines.append(
                f".. autoclass:: {name}.{public}\n   :members:\n   :exclude-members: forward\n"
            )
        elif callable(thing):
            lines.append(f".. autofunction:: {name}.{public}\n")
    return "\n\n".join([*lines, "```"]) + "\n"


def public_names(module, name: str) -> list[str]:
    """What a module offers: its __all__, else the names that it takes from its own files."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    found = []
    for public in dir(module):
        if public.startswith("_") or public.isupper():
            continue
        thing = getattr(module, public)
        home = getattr(thing, "__module__", "") or ""
        if home.startswith(name) and (inspect.isclass(thing) or inspect.isfunction(thing)):
            found.append(public)
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if "--clean" in sys.argv:
        shutil.rmtree(target, ignore_errors=True)
    assemble(target)
