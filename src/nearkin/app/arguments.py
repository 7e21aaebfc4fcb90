"""The flags of a command, in titled groups: what help prints, shells complete, and the docs show.

What is read stays tyro's matter (parse.py). A test holds the two to the same flags.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro
from docstring_parser import parse, parse_from_object

from nearkin import registry
from nearkin.names import resolve

GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("data", "labels", "size", "augment", "keep_images", "keep_classes"),
    "what is learnt": ("loss", "loss_options", "backbone", "tail", "dim", "like", "recipe"),
    "how long": ("epochs", "steps", "batch", "per_class", "sampler", "lr", "seed", "seeds"),
    "how it is judged": (
        "validate",
        "validate_every",
        "patience",
        "metric",
        "evaluate_every",
        "refine",
    ),
    "where": (
        "out",
        "output",
        "publish",
        "jobs",
        "device",
        "devices",
        "threads",
        "root",
        "download",
    ),
}
"""Title -> flags, in the order in which people change them. Of the other flags those of a recipe
and of a machine come last, and those of a command by itself first."""
RARELY = "rarely changed"
OWN = "options"
ORDER = ("arguments", OWN, *GROUPS, RARELY)
NAMED: dict[str, Mapping[str, Any]] = {
    "data": registry.DATASETS,
    "backbone": registry.BACKBONES,
    "loss": registry.LOSSES,
    "miner": registry.MINERS,
    "sampler": registry.SAMPLERS,
    "augment": registry.AUGMENTS,
    "optimizer": registry.OPTIMIZERS,
    "schedule": registry.SCHEDULES,
    "precision": registry.PRECISIONS,
    "metric": dict.fromkeys(registry.METRICS),
    "refine": registry.SOURCES,
    "Study.name": registry.STUDIES,
}
"""Flag -> the names that a shell may complete it with; the flag takes others too, such as paths."""
WORDS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
WIDEST = 100


@dataclass(frozen=True)
class Flag:
    """A flag or a positional argument of a command, as it is shown."""

    name: str
    kind: Any
    default: Any
    text: str
    aliases: tuple[str, ...] = ()
    positional: bool = False
    owner: type | None = None
    """the dataclass that has it as a field; None of a parameter of the command itself"""

    @property
    def group(self) -> str:
        """The title under which it stands."""
        if self.positional:
            return "arguments"
        found = (title for title, names in GROUPS.items() if self.name in names)
        return next(found, RARELY if self.owner and self.owner.__name__ in RARE else OWN)


PATHS = ("first", "photos", "start", "like", "made_by", "model")
"""Flags of text whose values are paths as a rule."""
RARE = ("Recipe", "Machine", "MadeBy")
REQUIRED = inspect.Parameter.empty


@lru_cache
def flags_of(command: Callable) -> tuple[Flag, ...]:
    """The flags of a command, in the order of its parameters; those of a dataclass where it
    stands."""
    signature = inspect.signature(command).parameters
    texts = {p.arg_name: p.description or "" for p in parse(inspect.getdoc(command) or "").params}
    return tuple(read(command, {k: p.default for k, p in signature.items()}, texts, None))


def read(
    kind: Any, defaults: Mapping[str, Any], texts: Mapping[str, str], owner: type | None
) -> Iterator[Flag]:
    """The flags of a function or a dataclass."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name == "return" or name not in defaults:
            continue
        within, *marks = get_args(hint) if hasattr(hint, "__metadata__") else [hint]
        if isinstance(within, type) and is_dataclass(within):
            given = defaults[name]
            inner = {f.name: default_of(f, given) for f in fields(within)}
            said = {p.arg_name: p.description or "" for p in parse_from_object(within).params}
            yield from read(within, inner, said, within)
            continue
        positional = any(mark in marks for mark in get_args(tyro.conf.Positional[str])[1:])
        aliases = tuple(a for mark in marks for a in getattr(mark, "aliases", None) or ())
        text = re.sub(r"(?<!\.)\.$", "", " ".join(texts.get(name, "").split()))
        yield Flag(name, within, defaults[name], text, aliases, positional, owner)


def default_of(field: Any, given: Any) -> Any:
    """The default of a dataclass's field, where an object of it is given: that object's."""
    if is_dataclass(given) and not isinstance(given, type):
        return getattr(given, field.name)
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else REQUIRED


def parser_of(name: str, command: Callable) -> argparse.ArgumentParser:
    """The parser that shows a command: `nearkin NAME --help` prints it."""
    found = list(flags_of(command))
    if "recipe" in inspect.signature(command).parameters:
        text = "JSON file of a recipe, or of a row; other flags change what it says"
        found.append(Flag("recipe", Path, None, text))
    found.sort(key=place_of)
    words = [shown_as(flag) for flag in found if flag.positional]
    made = argparse.ArgumentParser(
        f"nearkin {name}",
        usage=" ".join([f"nearkin {name}", *words, "[FLAGS]"]),
        description=description(command).replace("%", "%%"),
        formatter_class=partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=27, width=width()
        ),
        add_help=False,
        allow_abbrev=False,
    )
    titles = [title for title in ORDER if title in {flag.group for flag in found}] or [OWN]
    for title in titles:
        group = made.add_argument_group(title)
        for flag in (flag for flag in found if flag.group == title):
            add(group, flag)
    group.add_argument("-h", "--help", action="help", help="show this and leave")
    return made


def width() -> int:
    """Characters of a line: those of the terminal, and not too many to read."""
    return min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)


def shown_as(flag: Flag) -> str:
    """A positional argument in the line of usage."""
    name = flag.name.upper()
    several = get_origin(flag.kind) is tuple
    if flag.default is REQUIRED:
        return f"{name} [{name} ...]" if several else name
    return f"[{name} ...]" if several else f"[{name}]"


def place_of(flag: Flag) -> tuple[int, int]:
    """Where a flag stands: its group, and its place there."""
    names = GROUPS.get(flag.group, ())
    return ORDER.index(flag.group), names.index(flag.name) if flag.name in names else 0


def add(group: Any, flag: Flag) -> None:
    """Add a flag to a group of a parser."""
    kind = next((k for k in get_args(flag.kind) if k is not type(None)), flag.kind)
    outer = get_origin(flag.kind)
    kind = flag.kind if outer in (Literal, Mapping) else kind  # of tuple[X, ...] and X | None: X
    options: dict[str, Any] = {"help": told(flag).replace("%", "%%")}
    spelling = "--" + flag.name.replace("_", "-")
    if kind is bool:
        action = argparse.BooleanOptionalAction if flag.default else "store_true"
        group.add_argument(spelling, action=action, **options)
        return
    known = get_args(kind) if outer is Literal else tuple(NAMED.get(key_of(flag), ()))
    if known:
        options["choices"] = [word for word in known if word]
    if outer in (tuple, Mapping):
        options["nargs"] = "*"
    options["metavar"] = (
        flag.name.upper()
        if flag.positional
        else "KEY=VALUE"
        if outer is Mapping
        else "{" + ",".join(options["choices"]) + "}"
        if outer is Literal
        else "NAME"
        if known
        else WORDS.get(kind, "TEXT")
    )
    words = [flag.name] if flag.positional else [*flag.aliases, spelling]
    added = group.add_argument(*words, **options)
    added.takes_path = kind is Path or flag.name in PATHS


def key_of(flag: Flag) -> str:
    """The key of a flag in NAMED."""
    owned = f"{flag.owner.__name__}.{flag.name}" if flag.owner else flag.name
    return owned if owned in NAMED else "" if flag.positional else flag.name


def told(flag: Flag) -> str:
    """What a flag is, and its default where that says something."""
    if flag.default is REQUIRED:
        return flag.text if flag.positional else f"{flag.text} (required)"
    silent = flag.default is None or isinstance(flag.default, bool) or not str(flag.default)
    silent = silent or flag.default in ((), {})
    says = not silent and f"{flag.default}: " not in flag.text  # as in "0: the batch alone"
    return f"{flag.text} (default: {flag.default})" if says else flag.text


def description(command: Callable) -> str:
    """The docstring of a command up to its Args, its examples together at the end."""
    text = (inspect.getdoc(command) or "").partition("\nArgs:")[0].strip()
    paragraphs = text.split("\n\n")
    examples = [p.removeprefix("Example: ") for p in paragraphs if p.startswith("Example: ")]
    rest = [p for p in paragraphs if not p.startswith("Example: ")]
    return "\n\n".join([*rest, *(["\n".join(["examples:", *(f"  {e}" for e in examples)])])])


def whole(commands: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The parser of all commands, for a shell's completion."""
    made = argparse.ArgumentParser("nearkin", allow_abbrev=False)
    made.add_argument("--version", action="store_true", help="print the version")
    inner = made.add_subparsers()
    for name, entry in commands.items():
        command = resolve(entry)
        text = (inspect.getdoc(command) or "").splitlines()[0].replace("%", "%%")
        inner.add_parser(name, help=text, parents=[parser_of(name, command)], add_help=False)
    return made
