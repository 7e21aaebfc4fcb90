"""The history of a run as a doctor keeps it: its losses, looks at batches, and tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean, median
from typing import Any

from nearkin.doctor.shape import Shape

POINTS = 2000  # of the curve of losses that is kept


@dataclass(frozen=True)
class Look:
    """What one batch told; None where nobody can know.

    gradient: the norm of the module's gradient.
    moved, travelled: by how much weights changed in one step, and since the first look, as a share
        of their size: the median, and the largest, over the matrices of the module.
    active: share of the loss's pairs that have a gradient.
    unmoved, unused: share of the proxies that are where they were at the first look, and that no
        item of their class had for its nearest.
    displaced: how far running statistics of batch norm in place of its own move the embeddings of
        the same batch: root mean square, as a share of their spread.
    level: the loss of this batch if all its embeddings were one; looked at in suspicion alone.
    """

    step: int
    loss: float
    shape: Shape
    gradient: float | None = None
    moved: float | None = None
    travelled: float | None = None
    active: float | None = None
    unmoved: float | None = None
    unused: float | None = None
    displaced: float | None = None
    level: float | None = None


@dataclass(frozen=True)
class Test:
    """R@1 of items that are not trained on, and that of chance."""

    step: int
    recall: float
    chance: float
    items: int

    __test__ = False  # it is no test of pytest's


@dataclass(frozen=True)
class Birth:
    """Where NaN was born: in which step, in which tensor."""

    step: int
    tensor: str


@dataclass
class History:
    """All that a doctor knows of a run.

    known: settings that cures depend on: lr, dim, batch, miner, sampler, ... as recipes have them.
    margin: of the loss; None where it has none.
    whole: the shape of the last test set, where it was shown.
    swallower, swallowed, others: see `crowd.swallowing`, over the latest batches.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    born: Birth | None = None
    margin: float | None = None
    whole: Shape | None = None
    swallower: int = 0
    swallowed: float = 0.0
    others: int = 0
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def late(self) -> list[Look]:
        """The looks of the last third of the steps, two at least."""
        found = [look for look in self.looks if look.step > 2 * self.steps / 3]
        return found if len(found) > 1 else self.looks[-2:]

    def typical(self, read: Callable[[Look], float | None], looks: Sequence[Look]) -> float | None:
        """The median over looks of what they know; None where most of them know nothing."""
        values = [value for look in looks if (value := read(look)) is not None]
        known = [value for value in values if not math.isnan(value)]
        return median(known) if 2 * len(known) > len(values) else None

    def lately(self, read: Callable[[Look], float | None]) -> float | None:
        """The median over the late looks."""
        return self.typical(read, self.late)

    def at_first(self, read: Callable[[Look], float | None]) -> float | None:
        """The median over the first two looks."""
        return self.typical(read, self.looks[:2])

    @property
    def start(self) -> float:
        """The loss at the start: of the first batch, which nothing has changed yet; where it is 0,
        the median of the first steps."""
        return self.losses[0] or median(self.losses[:5])

    @property
    def last_quarter(self) -> list[float]:
        return self.losses[-max(3, len(self.losses) // 4) :]

    @property
    def end(self) -> float:
        """The loss at the end: the mean of the last quarter."""
        return fmean(self.last_quarter or [math.nan])

    @property
    def grown(self) -> bool:
        """Whether the loss at the end is several times that at the start."""
        return bool(self.losses) and self.losses[-1] > 3 * abs(self.start)

    @property
    def drift(self) -> float:
        """How far the means of the four parts of the last half lie apart, as a share of their
        mean; 0 where the loss is flat."""
        half = self.losses[len(self.losses) // 2 :] or [math.nan]
        size = max(1, len(half) // 4)
        means = [fmean(half[i * size : (i + 1) * size] or half) for i in range(4)]
        return (max(means) - min(means)) / max(abs(fmean(means)), 1e-30)

    @property
    def zeros(self) -> float:
        """Share of the last quarter in which the loss was 0, but for rounding."""
        tiny = 1e-7 * max(map(abs, self.losses), default=0.0)
        return fmean([abs(loss) <= tiny for loss in self.last_quarter] or [0])

    def plain(self) -> dict[str, Any]:
        """As plain data, the curve of losses thinned."""
        every = max(1, -(-len(self.losses) // POINTS))
        parts = [self.losses[i : i + every] for i in range(0, len(self.losses), every)]
        return {**asdict(self), "losses": [fmean(part) for part in parts]}


def history_of(raw: Any) -> History:
    """The history of this plain data.

    Raises:
        ValueError: a part is missing, unknown or of another kind.
    """
    try:
        raw = dict(raw)
        looks = [Look(**{**look, "shape": Shape(**look["shape"])}) for look in raw["looks"]]
        tests = [Test(**test) for test in raw["tests"]]
        born = Birth(**raw["born"]) if raw["born"] else None
        whole = Shape(**raw["whole"]) if raw["whole"] else None
        parts = {"looks": looks, "tests": tests, "born": born, "whole": whole}
        found = History(**{**raw, **parts})
        sound = all(isinstance(loss, int | float) for loss in found.losses)
        sound = sound and all(is_numbers(look) and is_numbers(look.shape) for look in looks)
        sound = sound and isinstance(found.steps, int) and isinstance(found.known, Mapping)
        if not sound:
            raise TypeError("it holds what is no number")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"not the history of a run ({error})") from None
    return found


def is_numbers(value: Any) -> bool:
    """Whether all fields but those that are values themselves are numbers, or unknown."""
    kinds = int | float | None | Shape
    names = [f.name for f in fields(value) if f.name != "metric"]
    return all(isinstance(getattr(value, name), kinds) for name in names)
