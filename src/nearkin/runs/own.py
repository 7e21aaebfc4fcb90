"""Fingerprints of one's own objects: of weights, of the source of classes, of what they hold."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn

from nearkin.data.fingerprint import of_tensor

BARE = set(vars(nn.Module()))  # what every module holds: told by its weights and its parts
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


HEAP_TYPE = 1 << 9  # of a class that Python code made


class Unreadable(ValueError):
    """An object whose content cannot be read, so that no other can be known to be the same."""


def fingerprint_of(module: nn.Module) -> tuple[str, str]:
    """16 hex digits of a module, and "" or why there can be none.

    They are of its initial weights and buffers, of the source of its classes and of theirs from
    which they inherit, and of all values that it and its parts hold, as their constructors set
    them. Where one of these cannot be read (a class that was typed into an interpreter, an open
    file, a hook), the fingerprint is one that no other object has.
    """
    try:
        content = json.dumps(module_as_plain(module, ()), sort_keys=True)
    except Unreadable as error:
        return f"own-{uuid4().hex[:12]}", str(error)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest(), ""


def module_as_plain(module: nn.Module, above: tuple[int, ...]) -> Any:
    """A module as plain data: classes, weights, values, and parts in their order."""
    if isinstance(module, torch.jit.ScriptModule) or any(getattr(module, h) for h in HOOKS):
        raise Unreadable(f"{type(module).__name__} has hooks, or is a compiled script")
    held = {k: v for k, v in vars(module).items() if k not in BARE}
    weights = {**module._parameters, **module._buffers}
    return {
        "class": sources_of(type(module)),
        "weights": {k: None if w is None else of_weight(w) for k, w in weights.items()},
        "values": {k: as_plain(v, (*above, id(module))) for k, v in held.items()},
        "parts": [
            [name, None if part is None else module_as_plain(part, (*above, id(module)))]
            for name, part in module._modules.items()
        ],
    }


def of_weight(tensor: Tensor) -> list:
    """A tensor as plain data; whether it learns belongs to it."""
    if tensor.is_sparse or tensor.is_quantized or tensor.device.type == "meta":
        raise Unreadable(f"a weight is {tensor.layout} on {tensor.device.type}")
    return [of_tensor(tensor).hex(), tensor.requires_grad]


@lru_cache
def sources_of(kind: type) -> list[str]:
    """The name and the source of a class and of those that it inherits from, but for torch's own,
    which are told by torch's version."""
    return [f"{c.__module__}.{c.__qualname__} {source_of(c)}" for c in kind.__mro__[:-1]]


def source_of(thing: Any) -> str:
    """The digest of the source of a class or a function; of those of torch, its version."""
    package = thing.__module__.partition(".")[0]
    if package in ("torch", "builtins"):
        return str(torch.__version__)
    try:
        return hashlib.blake2b(inspect.getsource(thing).encode(), digest_size=8).hexdigest()
    except (OSError, TypeError):
        raise Unreadable(f"the source of {thing.__qualname__} is not to be had") from None


def as_plain(value: Any, above: tuple[int, ...]) -> Any:
    """Any value that an object holds, as plain data; an Unreadable where that is not possible."""
    if value is None or isinstance(value, str | int | float | bool | bytes | complex):
        return [type(value).__name__, repr(value)]
    if isinstance(value, torch.dtype | torch.device | torch.Size | PurePath | range | slice):
        return [type(value).__name__, str(value)]
    if id(value) in above:  # a part that knows the whole
        return ["above", above.index(id(value))]
    above = (*above, id(value))
    if isinstance(value, nn.Module):
        return module_as_plain(value, above)
    if isinstance(value, Tensor):
        return of_weight(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        array = np.ascontiguousarray(value)
        return [str(array.dtype), array.shape, hashlib.blake2b(array.tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return ["mapping", [[as_plain(k, above), as_plain(v, above)] for k, v in value.items()]]
    if isinstance(value, Set):
        return ["set", sorted(json.dumps(as_plain(v, above)) for v in value)]
    if isinstance(value, Sequence):
        return [type(value).__name__, [as_plain(v, above) for v in value]]
    if isinstance(value, partial):
        return ["partial", as_plain([value.func, value.args, value.keywords], above)]
    if isinstance(value, type):
        return ["class", sources_of(value)]
    if isinstance(value, BuiltinFunctionType):
        return ["builtin", f"{value.__module__}.{value.__qualname__}", str(torch.__version__)]
    if isinstance(value, FunctionType):
        return function_as_plain(value, above)
    if isinstance(value, MethodType):
        return ["method", as_plain(value.__func__, above), as_plain(value.__self__, above)]
    if is_dataclass(value):
        held = {f.name: getattr(value, f.name) for f in fields(value)}
        return [sources_of(type(value)), as_plain(held, above)]
    if hasattr(value, "__dict__") and all(in_python(c) for c in type(value).__mro__[:-1]):
        return [sources_of(type(value)), as_plain(vars(value), above)]
    raise Unreadable(f"it holds a {type(value).__name__}, whose content cannot be read")


def in_python(kind: type) -> bool:
    """Whether all that an instance of the class holds stands in its __dict__."""
    made_by_statement = kind.__flags__ & HEAP_TYPE and kind.__module__ != "builtins"
    return bool(made_by_statement) and "__slots__" not in vars(kind)


def function_as_plain(function: FunctionType, above: tuple[int, ...]) -> Any:
    """A function by its name, its source, its defaults and the variables around it."""
    try:
        around = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:
        raise Unreadable(
            f"{function.__qualname__} closes over a variable without a value"
        ) from None
    return [
        f"{function.__module__}.{function.__qualname__}",
        source_of(function),
        as_plain([function.__defaults__, function.__kwdefaults__, around], above),
    ]
