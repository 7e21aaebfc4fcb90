"""The closed forms by name, and how one is made of a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from numbers import Integral, Real
from typing import Any

from nearkin.closed.forms import FORMULAS, LinearMap, Shrinkage
from nearkin.closed.moments import Set
from nearkin.names import arguments, look_up, parameters_of
from nearkin.registry import FORMS

UNLABELLED = {"power", "pca", "pca-whitened"}
"""Those that look at no labels."""


def solve(
    form: str,
    of: Set,
    dim: int | None = None,
    *,
    power: float = 1.0,
    shrinkage: Shrinkage | None = None,
    options: Mapping[str, Any] | None = None,
) -> LinearMap:
    """The map that a form makes of a set whose features have been given this power.

    Args:
        dim: D; by default, and at most, as many as there are features.
        shrinkage: a share of the mean variance, "oas" or "ledoit-wolf"; by default the form's own.
        options: those of the form alone.
    """
    features = of.moments.features
    dim = features if dim is None else dim
    if type(dim) is bool or not isinstance(dim, Integral) or not 1 <= dim <= features:
        raise ValueError(f"dim must be from 1 to the {features} features, got {dim}")
    given = check_options(form, shrinkage, options or {})
    return replace(
        look_up(form, FORMS, "closed form")(**{**given, "of": of, "dim": dim}), power=power
    )


def check_options(
    form: str, shrinkage: Shrinkage | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a form is called with, but for the set and the dimension; what it does not know is
    refused."""
    build = look_up(form, FORMS, "closed form")
    check_settings(1.0, shrinkage)
    if shrinkage is not None and "shrinkage" not in parameters_of(build):
        raise ValueError(f"closed form {form!r} has no shrinkage, got {shrinkage!r}")
    offered: dict[str, Any] = {"of": ..., "dim": ..., "shrinkage": shrinkage}
    return arguments(build, options, f"option of closed form {form!r}", **offered)


def check_settings(power: float, shrinkage: Shrinkage | None) -> None:
    """The power is above 0, and the shrinkage a share of 0 or more, or one of the formulas."""
    if not isinstance(power, Real) or not 0 < power < inf:
        raise ValueError(f"power must be above 0, and finite, got {power}")
    named = isinstance(shrinkage, str)
    if shrinkage is None or shrinkage in FORMULAS:
        return
    if not named and isinstance(shrinkage, Real) and 0 <= shrinkage < inf:
        return
    wanted = f"a share of 0 or more, {' or '.join(FORMULAS)}"
    raise ValueError(f"shrinkage must be {wanted}, got {shrinkage!r}")
