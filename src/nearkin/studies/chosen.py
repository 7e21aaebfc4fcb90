"""What `nearkin choose` found, as choice.json holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nearkin.files import read_json, write_whole
from nearkin.measure.statistics import Estimate
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, parsed
from nearkin.studies.shared.reading import METRICS

FORMAT = 1
FILE = "choice.json"


@dataclass(frozen=True)
class Tried:
    """A method under its best setting: the mean of its metric on validation, and what it took."""

    method: str
    validation: float
    seconds: float


@dataclass(frozen=True)
class Made:
    """The backbone of a choice; nothing of it where features were given."""

    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True)
class Choice:
    """What `choose` found out, as choice.json holds it.

    recipe: of the method on stored features, without their file.
    backbone: made the features of photographs: name, options, size; empty where they were given.
    fingerprint: of the data set.
    metric: by which it was chosen.
    test, untrained: the metric of the chosen method and of no training on the test part, with 95 %
        intervals over its classes; difference: of the two, paired.
    sure: whether that interval lies above 0.
    doubt: what the numbers do not tell, in words; "".
    """

    format: int
    method: str
    recipe: Mapping[str, Any]
    backbone: Mapping[str, Any]
    data: str
    fingerprint: str
    metric: str
    tried: tuple[Tried, ...]
    test: Estimate
    untrained: Estimate
    difference: Estimate
    sure: bool
    doubt: str
    seconds: float

    @classmethod
    def read(cls, path: Path) -> Choice:
        """The choice in a file, checked."""
        found = read_json(path)
        format = found.get("format") if isinstance(found, dict) else None
        if isinstance(format, int) and format > FORMAT:
            raise ValueError(f"{path}: written by a newer Nearkin (format {format})")
        try:
            choice = parsed(cls, found, "choice")
            parsed(Made, choice.backbone, "backbone")
            if choice.metric not in {metric.key for metric in METRICS}:
                raise ValueError(f"no metric {choice.metric!r}")
            Recipe(**choice.recipe)
        except (ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{path} is no choice that `nearkin choose` wrote ({why})") from None
        return choice

    def write(self, path: Path) -> None:
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))

    @property
    def metric_name(self) -> str:
        """The metric as a person reads it."""
        return next(metric.name for metric in METRICS if metric.key == self.metric)

    def recipe_for(self, data: str) -> Recipe:
        """The chosen recipe, on these stored features."""
        return replace(Recipe(**self.recipe), data=data)


def verdict(choice: Choice, row: Row, plain: Row) -> str:
    """Whether a run ended above no training, in a sentence; how surely, as the choice found it,
    where the run is of the chosen recipe."""
    ahead, behind = (each.metrics.last[choice.metric] for each in (row, plain))  # type: ignore[index]
    name = choice.metric_name
    if row.key == plain.key:
        return (
            f"no training, as was chosen: the backbone as it is has {name} "
            f"{100 * ahead:.1f} % on the test part"
        )
    words = "above" if ahead > behind else "NOT above"
    apart, as_chosen = choice.difference, row.recipe == choice.recipe_for(row.recipe.data)
    within = f"{100 * apart.low:.1f} to {100 * apart.high:.1f}, 95 %, over test classes"
    return (
        f"{choice.method} ends {words} no training: {name} {100 * ahead:.1f} % against "
        f"{100 * behind:.1f} % on the test part"
        + (f", a difference of {100 * apart.mean:.1f} points ({within})" if as_chosen else "")
    )
