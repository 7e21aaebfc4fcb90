"""Words of the command line: the command they ask for, key=value, a recipe's file, complaints."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial, wraps
from pathlib import Path

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from nearkin.names import look_up, nearest
from nearkin.runs.recipe import Plain, Recipe

Commands = Mapping[str, Callable]
"""Name -> what carries it out; its parameters are the flags."""


def key_values(words: list[str]) -> dict[str, Plain]:
    """['margin=0.5', 'form=printed'] -> {'margin': 0.5, 'form': 'printed'}."""
    found: dict[str, Plain] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"wanted key=value, got {word!r}")
        if key in found:
            raise ValueError(f"{key} is given twice")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
        if not isinstance(found[key], Plain):
            found[key] = value
    return found


def registry() -> ConstructorRegistry:
    """tyro's rules, and that a mapping is typed as key=value key=value ..."""
    rules = ConstructorRegistry()

    @rules.primitive_rule
    def mapping(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if typing.get_origin(info.type) is not Mapping:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="KEY=VALUE",
            instance_from_str=key_values,
            is_instance=lambda x: isinstance(x, Mapping),
            str_from_instance=lambda x: [f"{k}={v}" for k, v in x.items()],
        )

    return rules


def split_recipe_file(words: list[str]) -> tuple[list[str], Recipe]:
    """The words without --recipe FILE, and the recipe that the file holds; flags go before it."""
    words = [
        part for w in words for part in (w.split("=", 1) if w.startswith("--recipe=") else [w])
    ]
    if "--recipe" not in words:
        return words, Recipe()
    at = words.index("--recipe")
    if at + 1 == len(words):
        raise ValueError("--recipe wants a file")
    return words[:at] + words[at + 2 :], read_recipe(Path(words[at + 1]))


def read_recipe(path: Path) -> Recipe:
    """A recipe from a JSON file: an object of its fields, or a row, whose recipe is meant."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted an object of a recipe's fields, got {found!r:.60}")
    found = found.get("recipe", found)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted an object as recipe, got {found!r:.60}")
    valid = [f.name for f in fields(Recipe)]
    for name in found:
        if name not in valid:
            raise ValueError(
                f"{path}: unknown field {name!r}: did you mean {nearest(name, valid)!r}?"
            )
    return Recipe(**found)


def complaint(text: str) -> str:
    """tyro's framed complaint in one line: what stands above the rule, and the nearest flag."""
    frame = "\n".join(line.strip("│| ") for line in text.strip().splitlines()[1:])
    parts = (" ".join(part.split()) for part in re.split(r"^\W+$", frame, flags=re.MULTILINE))
    said, *rest = filter(None, parts)
    if said.startswith("Unrecognized"):
        near = re.findall(r"(?<!\S)--[\w-]+", " ".join(rest))
        wrong = next((word.strip(",") for word in said.split() if word.startswith("-")), "")
        said += f": did you mean {nearest(wrong, near)}?" if near else ""
    return said


def one_line(message: Warning | str, *_) -> str:
    """A warning as the command line says it."""
    return f"nearkin: {' '.join(str(message).split())}\n"


def parse(words: list[str], recipe: Recipe, commands: Commands) -> Callable[[], None]:
    """The command that the words ask for, not yet carried out; prints help where that is asked."""
    if not words or words[0] in ("-h", "--help"):
        print(overview(commands))
        raise SystemExit(0 if words else 2)
    name, *rest = words
    refuse_twice(rest)
    command = look_up(name, commands, "command")
    if "recipe" in inspect.signature(command).parameters:
        command = partial(command, recipe=recipe)
    elif recipe != Recipe():
        raise ValueError(f"--recipe goes with `nearkin train`, not with {name!r}")

    @wraps(commands[name])
    def deferred(*args, **kwargs):
        return partial(command, *args, **kwargs)

    # so that the file's recipe is the default
    deferred.__signature__ = inspect.signature(command)  # type: ignore[attr-defined]
    said = io.StringIO()
    try:
        with registry(), contextlib.redirect_stderr(said):
            return tyro.cli(deferred, prog=f"nearkin {name}", args=rest)
    except SystemExit as leave:
        if leave.code:
            raise ValueError(complaint(said.getvalue())) from None
        raise


def refuse_twice(words: list[str]) -> None:
    """No flag may be given twice: of two the first would be dropped.

    >>> refuse_twice(["--loss-options", "margin=1", "--loss_options=form=printed"])
    Traceback (most recent call last):
    ValueError: --loss-options is given twice: put all its values behind one
    """
    flags = [w.partition("=")[0].replace("_", "-") for w in words if w.startswith("--")]
    flags = [flag.replace("--no-", "--", 1) for flag in flags if flag != "--help"]
    for flag in flags:
        if flags.count(flag) > 1:
            raise ValueError(f"{flag} is given twice: put all its values behind one")


def overview(commands: Commands) -> str:
    """What `nearkin --help` says: each command with its first line and its example."""
    lines = [
        "Embeddings in which near means kin: train them, and find out which method does it best."
    ]
    for name, command in commands.items():
        text = inspect.getdoc(command) or ""
        examples = [line for line in text.splitlines() if line.startswith("Example:")]
        lines += ["", f"  nearkin {name}: {text.splitlines()[0]}"]
        lines += [f"      {line.removeprefix('Example: ')}" for line in examples]
    return "\n".join([*lines, "", "nearkin COMMAND --help lists the flags of a command."])
