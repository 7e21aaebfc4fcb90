"""A study as a value: a question, the runs that it takes, and the answer to be read from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nearkin.answers import Answer
from nearkin.names import Plain
from nearkin.runs.engine import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Measurement, Row


@dataclass(frozen=True, init=False)
class Case:
    """The name under which a study asks for a run: its method, its seed, and any further axes.

    It travels with the row, so that nothing has to be guessed back from the recipe.

    >>> case = Case("ProxyGML", seed=1, dim=64)
    >>> case["dim"], case.label, case == Case("ProxyGML", 1, dim=64)
    (64, 'ProxyGML, dim 64', True)
    """

    method: str
    seed: int
    axes: tuple[tuple[str, Any], ...]
    """name and value of each, by name"""

    def __init__(self, method: str, seed: int = 0, **axes: Plain) -> None:
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "axes", tuple(sorted(axes.items())))

    def __getitem__(self, axis: str) -> Any:
        return dict(self.axes)[axis]

    def __contains__(self, axis: str) -> bool:
        return axis in dict(self.axes)

    def get(self, axis: str, default: Any = None) -> Any:
        """The value on this axis, or the default where the case has no such axis."""
        return dict(self.axes).get(axis, default)

    def on(self, **axes: Plain) -> bool:
        """Whether the case has these values on these axes, among which are method and seed."""
        own = self.plain()
        return all(axis in own and own[axis] == value for axis, value in axes.items())

    @property
    def label(self) -> str:
        """The case in words, but for its seed."""
        return ", ".join([self.method, *(f"{name} {value}" for name, value in self.axes)])

    def plain(self) -> dict[str, Any]:
        """Method, seed and axes as one dictionary, of which Case(**it) is this case."""
        return {"method": self.method, "seed": self.seed, **dict(self.axes)}


Recipes = dict[Case, Recipe]
Rows = Mapping[Case, Row]


@dataclass(frozen=True)
class Task:
    """What is measured without a run of a recipe: the hash that names it, the function that gives
    its values, and the recipe whose data set it is measured on, where there is one."""

    hash: str
    measure: Callable[[Place], dict[str, Any]]
    recipe: Recipe | None = None


Measured = Mapping[Case, Measurement]


@dataclass(frozen=True)
class Study:
    """A question, and two pure functions: which runs it takes, and what came of them.

    The parameters of `recipes` (or `measure`) are the options of the study. What most of them take,
    and the studies do not explain again:

        data       the data set
        seeds      how many random seeds, from 0
        epochs     the most that a run may take; 0 takes the common number
        tune       whether settings are searched; otherwise the common ones are taken
        start      how linear heads on features start: whitened, as a closed form that the search
                   chooses, or orthogonal
        searched   the rows of `search`, whose parameters are some of these
    """

    title: str
    """a line"""
    question: str
    """a paragraph"""
    answer: Callable[[Mapping[Case, Any]], Answer]
    """what the rows of the cases say; of an unfinished study some are missing"""
    recipes: Callable[..., Recipes] | None = None
    """the runs to be reported, each under its case"""
    search: Callable[..., Recipes] | None = None
    """trials on validation classes that choose settings; `recipes` is then asked again with their
    rows as `searched`"""
    measure: Callable[..., dict[Case, Task]] | None = None
    """in place of recipes: what is measured without a run of a recipe"""
    demo: Mapping[str, Plain] | None = field(default=None)
    """options of a short form that needs no data set to be fetched"""

    def __post_init__(self) -> None:
        if (self.recipes is None) == (self.measure is None):
            raise ValueError(f"{self.title}: wanted recipes, or measure in their place")

    @property
    def asks(self) -> Callable[..., dict[Case, Any]]:
        """`recipes` or `measure`, whichever the study has."""
        found = self.recipes or self.measure
        assert found
        return found
