"""The words of a command line: a command and its flags, key=value, and the file of a recipe."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields
from functools import partial, wraps
from pathlib import Path
from typing import Any, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from nearkin.app.arguments import flags_of, parser_of
from nearkin.files import expanded, read_json
from nearkin.names import Plain, look_up, nearest, resolve, unknown
from nearkin.runs.recipe import Recipe

Commands = Mapping[str, Any]
"""Name -> a function, or its "module:function"; its parameters are the flags."""


TYPED: ContextVar[frozenset[str]] = ContextVar("typed", default=frozenset())
"""The flags of the last command line, as names of fields: those that a person has typed."""


def parse(words: Sequence[str], commands: Commands) -> Callable[[], None]:
    """The command that the words ask for, not yet carried out; prints help where that is called."""
    if not words or words[0] in ("-h", "--help"):
        print(overview(commands))
        raise SystemExit(0 if words else 2)
    if [*words] in (["-V"], ["--version"]):
        print("nearkin", resolve("nearkin:__version__"))
        raise SystemExit(0)
    name, *rest = words
    command = look_up(name, commands, "command")
    if {"-h", "--help"} & {*rest}:
        print(parser_of(name, command).format_help(), end="")
        raise SystemExit(0)
    rest, recipe = split_recipe_file(rest)
    TYPED.set(frozenset(named(rest)))
    refuse_twice(rest)
    refuse_empty(rest, flags(command))
    called = command
    if recipe:
        if "recipe" not in inspect.signature(command).parameters:
            raise ValueError(f"--recipe goes with `nearkin train`, not with {name!r}")
        called = partial(command, recipe=read_recipe(expanded(recipe)))  # the defaults of the flags

    @wraps(command)
    def deferred(*args, **kwargs):
        return partial(called, *args, **kwargs)

    deferred.__signature__ = inspect.signature(called)  # type: ignore[attr-defined]
    frame = io.StringIO()
    try:
        with rules(), contextlib.redirect_stderr(frame):
            return tyro.cli(deferred, prog=f"nearkin {name}", args=rest)
    except SystemExit as leave:
        if leave.code:
            raise ValueError(complaint(frame.getvalue(), flags(command))) from None
        raise


def overview(commands: Commands) -> str:
    """What `nearkin --help` prints: each command with its first line and its examples."""
    lines = [
        "Embeddings in which near means kin: train them, and find out which method does it best."
    ]
    for name, command in commands.items():
        text = inspect.getdoc(resolve(command)) or ""
        examples = [line for line in text.splitlines() if line.startswith("Example:")]
        lines += ["", f"  nearkin {name}: {text.splitlines()[0]}"]
        lines += [f"      {line.removeprefix('Example: ')}" for line in examples]
    last = "nearkin COMMAND --help lists the flags of a command; nearkin --version the version."
    return "\n".join([*lines, "", last])


def flags(command: Callable) -> dict[str, Any]:
    """Flag -> type: of a command's parameters, and of the fields of the dataclasses among them.

    >>> def command(x: int, recipe: Recipe): ...
    >>> list(flags(command))[:3]
    ['--x', '--data', '--keep-images']
    """
    named = (flag for flag in flags_of(command) if not flag.positional)
    return {f"--{flag.name.replace('_', '-')}": flag.kind for flag in named}


def complaint(frame: str, valid: Mapping[str, Any]) -> str:
    """tyro's framed complaint in one line: what stands between its title and its next rule."""
    body = "\n".join(line.strip("│| ") for line in frame.strip().splitlines()[1:])
    parts = (" ".join(part.split()) for part in re.split(r"^\W+$", body, flags=re.MULTILINE))
    text = next(filter(None, parts))
    wrong = re.match(r"Unrecognized options: (-[\w-]+)", text)
    if not wrong:
        return text
    negated = [f"--no-{flag[2:]}" for flag, kind in valid.items() if kind is bool]
    return f"{text}: did you mean {nearest(wrong[1], [*valid, *negated])}?"


def named(words: Sequence[str]) -> list[str]:
    """The names behind the flags among the words.

    >>> named(["train", "--loss-lr", "1", "--no-validate", "--dim=3"])
    ['loss_lr', 'validate', 'dim']
    """
    flags = [w.partition("=")[0].replace("_", "-") for w in words if w.startswith("--")]
    return [flag.replace("--no-", "--", 1)[2:].replace("-", "_") for flag in flags]


def refuse_twice(words: Sequence[str]) -> None:
    """No flag may be given twice: of two the first would be dropped.

    >>> refuse_twice(["--loss-options", "margin=1", "--loss_options=form=printed"])
    Traceback (most recent call last):
    ValueError: --loss-options is given twice: put all its values behind one
    """
    given = [name for name in named(words) if name != "help"]
    for name in given:
        if given.count(name) > 1:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is given twice: put all its values behind one")


def refuse_empty(words: Sequence[str], valid: Mapping[str, Any]) -> None:
    """A flag that takes several values wants one at least: none would be its default.

    >>> refuse_empty(["--ks", "--", "x"], {"--ks": tuple[int, ...]})
    Traceback (most recent call last):
    ValueError: --ks wants one value or more
    """
    for word, after in zip(words, [*words, "--"][1:], strict=True):
        several = get_origin(valid.get(word.replace("_", "-"))) in (tuple, Mapping)
        if several and after.startswith("--"):
            raise ValueError(f"{word} wants one value or more")


def split_recipe_file(words: Sequence[str]) -> tuple[list[str], str]:
    """The words without --recipe FILE, and the file; "" where there is none.

    >>> split_recipe_file(["--dim", "8", "--recipe=a.json"])
    (['--dim', '8'], 'a.json')
    """
    words = [w for word in words for w in re.split("(?<=^--recipe)=", word, maxsplit=1)]
    if "--recipe" not in words:
        return words, ""
    at = words.index("--recipe")
    if words[at + 1 : at + 2] in ([], [""]):
        raise ValueError("--recipe wants a file")
    return words[:at] + words[at + 2 :], words[at + 1]


def read_recipe(path: Path) -> Recipe:
    """A recipe from a JSON file: an object of its fields, or a row, whose recipe is meant."""
    found = read_json(path)
    if isinstance(found, dict):
        found = found.get("recipe", found)
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: wanted an object of a recipe's fields, got {found!r:.60}")
    valid = [f.name for f in fields(Recipe)]
    for name in found:
        if name not in valid:
            raise ValueError(f"{path}: {unknown(name, valid, 'field')}")
    return Recipe(**found)


def key_values(words: Sequence[str]) -> dict[str, Plain]:
    """['margin=0.5', 'form=printed'] -> {'margin': 0.5, 'form': 'printed'}."""
    found: dict[str, Plain] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"wanted key=value, got {word!r}")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = value
        with contextlib.suppress(ValueError, RecursionError):
            typed = json.loads(value)
            found[key] = typed if isinstance(typed, Plain) else value
    return found


def path_of(word: str) -> Path:
    """The path that a word is, with ~ as the home folder; an empty one, as of a variable that is
    not set, would be the working folder."""
    if not word:
        raise OSError("wanted a path, got ''")  # of a ValueError tyro says less
    return expanded(word)


def rules() -> ConstructorRegistry:
    """tyro's rules; a mapping is typed as key=value key=value ..., and ~ is the home folder."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def mapping(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if get_origin(info.type) is not Mapping:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="KEY=VALUE",
            instance_from_str=key_values,
            is_instance=lambda x: isinstance(x, Mapping),
            str_from_instance=lambda x: [f"{k}={v}" for k, v in x.items()],
        )

    @registry.primitive_rule
    def path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda words: path_of(words[0]),
            is_instance=lambda x: isinstance(x, Path),
            str_from_instance=lambda x: [str(x)],
        )

    return registry
