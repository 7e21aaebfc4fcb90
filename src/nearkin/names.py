"""Names that people type: looked up strictly; where one is wrong, the nearest valid one is named.

Every registry (losses, data sets, samplers, backbones, graphs, studies) is a dict literal that is
read through here, so that a misspelt name or option never quietly trains the default. The tables
of `nearkin.registry` hold "module:Name", which is imported once it is looked up.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeVar
from unicodedata import category

from nearkin.extras import optional

T = TypeVar("T")
Plain = str | int | float | bool | None  # what an option's value may be
TOO_LARGE = "out of memory|can't allocate memory|[Oo]verflow|int too big|failed to map segment"
"""What torch says of sizes that no machine holds, and the loader of a library that does not fit, in
errors that are of no kind of their own."""
REST = inspect.Parameter.VAR_KEYWORD
signature_of = lru_cache(256)(inspect.signature)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name most like this one; "" where there is none to choose from.

    >>> nearest("ratio-triplt", ["triplet", "ratio-triplet"])
    'ratio-triplet'
    """
    return next(iter(difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.0)), "")


def unknown(name: str, valid: Iterable[str], kind: str) -> ValueError:
    """The error for a name that is not among the valid ones.

    >>> str(unknown("cuub", ["cub", "cars"], "data set"))
    "unknown data set 'cuub': did you mean 'cub'? Valid: cars, cub"
    """
    valid = sorted(valid)
    if not valid:
        return ValueError(f"unknown {kind} {name!r}: there is none to choose from")
    guess = nearest(name, valid)
    return ValueError(f"unknown {kind} {name!r}: did you mean {guess!r}? Valid: {', '.join(valid)}")


def look_up(name: str, registry: Mapping[str, Any], kind: str) -> Any:
    """What registry[name] stands for, or a ValueError that names the nearest entry and lists all.

    >>> look_up("cub", {"cub": 200}, "data set")
    200
    >>> look_up("pi", {"pi": "math:pi"}, "number")
    3.14...
    """
    if name not in registry:
        raise unknown(name, registry, kind)
    return resolve(registry[name])


def resolve(entry: Any) -> Any:
    """What stands behind an entry of a registry: "module:Name" is imported, "module:" is the module
    itself, and any other value is what it is.

    >>> resolve("json:dumps")({}), resolve("32-true"), resolve(200)
    ('{}', '32-true', 200)
    """
    if not isinstance(entry, str) or ":" not in entry:
        return entry
    module, _, name = entry.partition(":")
    try:
        with optional():
            found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # what the module itself imports is missing
        raise ValueError(f"{entry!r}: there is no module {error.name}") from None
    if name and not hasattr(found, name):
        raise ValueError(
            f"{entry!r}: {module} has no {name}: did you mean {nearest(name, vars(found))}?"
        )
    return getattr(found, name) if name else found


def plain_number(value: Any) -> Any:
    """A scalar of NumPy as the number that it is, and anything else as it is."""
    of_numpy = type(value).__module__ == "numpy" and hasattr(value, "item")
    return value.item() if of_numpy and getattr(value, "ndim", 1) == 0 else value


def construct(build: Callable[..., T], options: Mapping[str, Any], kind: str, **offered: Any) -> T:
    """build(**options), with those of the offered values whose names `build` knows.

    Options are what a person asked for: one that `build` does not know is an error, and so is a
    value whose type is not that of the parameter's default. Offered values are what the run knows
    (classes, dim): passed where wanted and not None; an option may repeat, not contradict them. A
    number passes for a str, as in filters=32. A build that takes **options is given those that it
    does not name, and is strict about them itself.

    >>> construct(lambda dim, scale=1.0: dim * scale, {"scale": 2}, "loss", dim=8, classes=10)
    16
    >>> construct(lambda scale=1.0: scale, {"scael": 2}, "option of loss 'x'")
    Traceback (most recent call last):
    ValueError: unknown option of loss 'x' 'scael': did you mean 'scale'? Valid: scale
    """
    return build(**arguments(build, options, kind, **offered))


def arguments(
    build: Callable, options: Mapping[str, Any], kind: str, **offered: Any
) -> dict[str, Any]:
    """What `construct` calls build with."""
    signature = signature_of(build).parameters
    takes_more = "options" in signature and signature["options"].kind is REST
    parameters = parameters_of(build)
    options = {name: plain_number(value) for name, value in options.items()}
    known = {k: v for k, v in offered.items() if k in parameters and v is not None}
    refuse_contradiction(options, known, kind)
    given = {**options, **known}
    for name, value in options.items():
        if name not in parameters:
            if takes_more:
                continue
            raise unknown(name, parameters, kind)
        default = parameters[name].default
        if isinstance(default, str) and type(value) in (int, float):
            given[name] = str(value)
        elif not fits(value, default):
            wanted = type(default).__name__
            raise ValueError(f"{kind} {name!r}: wanted a value of type {wanted}, got {value!r}")
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in given]
    if missing:
        raise ValueError(f"{kind} missing: {', '.join(missing)} must be given")
    return given


def refuse_contradiction(options: Mapping[str, Any], known: Mapping[str, Any], kind: str) -> None:
    """An option of what the run itself knows must have the run's value.

    >>> refuse_contradiction({"dim": 7}, {"dim": 64}, "option of cross-entropy")
    Traceback (most recent call last):
    ValueError: option of cross-entropy 'dim': wanted 64, as the run has it, got 7
    """
    for name, value in options.items():
        if name in known and value != known[name]:
            wanted = f"{known[name]}, as the run has it"
            raise ValueError(f"{kind} {name!r}: wanted {wanted}, got {value!r}")


def fits(value: Any, default: Any) -> bool:
    """Whether a value may stand where this default stands: bool, int, float and str are kept apart.

    An int passes for a float; a default of None, or none at all, says nothing about the type.
    """
    if default is None or default is inspect.Parameter.empty:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def parameters_of(build: Callable) -> dict[str, inspect.Parameter]:
    """The parameters that `build` names, without *args and **options.

    >>> list(parameters_of(lambda dim, *rest, scale=1.0, **options: dim))
    ['dim', 'scale']
    """
    return {
        name: parameter
        for name, parameter in signature_of(build).parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, REST)
    }


def without_defaults(
    options: Mapping[str, Plain],
    parameters: Mapping[str, inspect.Parameter],
    offered: Collection[str] = (),
) -> dict[str, Plain]:
    """The options as their constructor takes them, less those that only repeat its defaults.

    Options that the run itself offers (`offered`) are left out too: they may only repeat its value.

    >>> known = parameters_of(lambda dim, scale=1.0, form="right", k=None: scale)
    >>> without_defaults({"scale": 1, "form": "printed", "dim": 64}, known, ["dim"])
    {'form': 'printed'}
    """
    found = {}
    for name, value in options.items():
        if name in offered:
            continue
        if name in parameters:
            value, default = (
                as_taken(v, parameters[name]) for v in (value, parameters[name].default)
            )
            if type(value) is type(default) and value == default:
                continue
        found[name] = value
    return found


def as_taken(value: Any, parameter: inspect.Parameter) -> Any:
    """A value as the parameter takes it: 1 for a float is 1.0, 32 for a text is "32".

    And 1.0 for an integer is 1: pytorch-metric-learning writes many floats as integers.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return value
    default = parameter.default
    if default is None or default is inspect.Parameter.empty:
        wants_float = re.search(r"\bfloat\b", str(parameter.annotation))
        default = 0.0 if wants_float else None
    if isinstance(default, str):
        return str(value)
    if isinstance(default, float):
        return float(value) + 0.0  # -0.0 is 0.0
    if isinstance(default, int) and float(value).is_integer():
        return int(value)
    return value


def typed(value: object) -> str:
    """A value as one types it: text as it is, unless it would be read as a number or the like.

    >>> typed("printed"), typed("1"), typed(1), typed(True)
    ('printed', '"1"', '1', 'true')
    """
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def visible(text: object) -> str:
    r"""A text with what a terminal would act on, or not show, as escapes: line breaks, colours,
    marks of direction.

    >>> print(visible("a\x1b[1mb\n"))
    a\x1b[1mb\n
    """
    return "".join(
        c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def refuse_no_part(name: str, part: float) -> None:
    """Refuse what is neither a share nor a number of classes or images."""
    if not (0 < part <= 1 or (part >= 2 and part == int(part))):
        raise ValueError(
            f"{name} must be in (0, 1], a share, or a whole number from 2 on, got {part:g}"
        )


def refuse_no_text(name: str, text: object) -> None:
    """Refuse a string that no file in UTF-8 can hold, as the name of a file in another encoding is,
    and one that no system takes.

    >>> refuse_no_text("--out", "caf\\udce9")
    Traceback (most recent call last):
    ValueError: --out: wanted text in UTF-8, got 'caf\\udce9'
    """
    try:
        str(text).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: wanted text in UTF-8, got {str(text)!r}") from None
    if "\0" in str(text):
        raise ValueError(f"{name}: wanted text, got {str(text)!r}, which holds a NUL")
