"""Differences and rankings in words, which claim no more than the tests do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import PurePath

from nearkin.measure.statistics import Difference, Estimate, estimate
from nearkin.studies.shared.reading import Scores, against, highest

SPREAD = "Mean over seeds ± half of its 95 % t-interval (two seeds: both numbers), last epoch"
EPOCH_ON_TEST = "what choosing the epoch on test would report"
"""What stands under tables."""

SURE = 0.05
"""The p, Holm-corrected, below which a difference is called one."""
NAMED = 3
"""Methods that a sentence names one by one; more are counted."""


def p_cell(p: float) -> str:
    """A p as a table prints it.

    >>> p_cell(0.0128), p_cell(1e-5)
    ('0.013', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_said(p: float) -> str:
    """A p within a sentence.

    >>> p_said(0.0128), p_said(1e-5)
    ('p = 0.013', 'p < 0.001')
    """
    return f"p {p_cell(p)}" if p < 0.001 else f"p = {p_cell(p)}"


def p_value(difference: Difference | None) -> str:
    """A p as a table prints it; nothing where one seed cannot tell."""
    if difference is None or difference.estimate.n < 2:
        return ""
    return p_cell(difference.p)


def difference_cells(difference: Difference | None) -> tuple[Estimate | None, str]:
    """A difference and its p, as two cells of a table."""
    return (difference.estimate if difference else None, p_value(difference))


def difference_words(difference: Difference) -> str:
    """A difference of shares in points, with its p where there are seeds to tell.

    >>> difference_words(Difference(estimate([0.01, 0.012, 0.011]), 0.01))
    '+1.1 points (p = 0.010)'
    """
    size = points(difference.estimate.mean)
    return f"{size} ({p_said(difference.p)})" if difference.estimate.n > 1 else size


def behind_words(difference: Difference) -> str:
    """How much less something has, by what another has over it.

    >>> behind_words(Difference(estimate([0.01, 0.012, 0.011]), 0.01))
    '1.1 points less (p = 0.010)'
    >>> behind_words(Difference(estimate([-0.01]), 1.0))
    '1.0 points more'
    """
    mean = difference.estimate.mean
    size = points(abs(mean), sign="")
    p = f" ({p_said(difference.p)})" if difference.estimate.n > 1 else ""
    return f"{size} {'less' if mean >= 0 else 'more'}{p}"


def signed(x: float, form: str = "z.2f") -> str:
    """A number with minus signs, which hyphens are not.

    >>> signed(-0.49), signed(-0.001), signed(2e-15, ".1g")
    ('−0.49', '0.00', '2e−15')
    """
    return format(x, form).replace("-", "−")


def points(share: float, sign: str = "+") -> str:
    """A difference of shares in points, with this sign where it is one of more.

    >>> points(0.0312), points(-0.005), points(0.0312, sign="")
    ('+3.1 points', '−0.5 points', '3.1 points')
    """
    return f"{signed(100 * share, f'{sign}z.1f')} points"


def percent(share: float, digits: int = 1) -> str:
    """A share in per cent.

    >>> percent(0.0312), percent(-0.71, 0), percent(-0.0001)
    ('3.1 %', '−71 %', '0.0 %')
    """
    return f"{signed(100 * share, f'z.{digits}f')} %"


def listed(names: Sequence[str], of: int = 0, most: int = NAMED) -> str:
    """Names in a row, or how many they are where they are more than `most`, of so many others.

    >>> listed(["a", "b", "c"]), listed(list("abcde"), of=9), listed(list("abcde"), of=5)
    ('a, b and c', '5 of the 9 others', 'all 5 others')
    """
    if len(names) > most:
        return f"all {of} others" if len(names) == of else f"{len(names)} of the {of} others"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def leader_words(found: Mapping[str, Scores], metric: str = "", digits: int = 1) -> str:
    """Who has the highest mean, and whether it is surely better than every other method.

    "X is best" where each paired t-test against the others, Holm-corrected, says so; otherwise who
    leads, and who cannot be told from it.

    >>> seeds = lambda mean: {seed: mean + seed / 1000 for seed in range(5)}
    >>> leader_words({"a": seeds(0.9), "b": seeds(0.8)}, "R@1")
    'a is best with 90.2 % R@1, surely above b.'
    >>> close = {0: 0.91, 1: 0.89, 2: 0.92, 3: 0.88, 4: 0.9}
    >>> leader_words({"a": seeds(0.9), "b": close, "c": seeds(0.8)}, "R@1")
    'a leads with 90.2 % R@1, but b cannot be told from it.'
    >>> leader_words({"a": {0: 0.9}, "b": {0: 0.8}}, "R@1")
    'a leads with 90.0 % R@1, but one seed cannot tell methods apart.'
    """
    name = highest(found)
    score = f"{percent(estimate(found[name].values()).mean, digits)} {metric}".rstrip()
    others = against(name, found)
    if not others:
        return f"{name} has {score}."
    unsure = undecided(others)
    if unsure:
        return f"{name} leads with {score}, but {unsure}."
    return f"{name} is best with {score}, surely above {listed(list(others), len(others))}."


def undecided(others: Mapping[str, Difference]) -> str:
    """Who cannot be told from a method that leads, by the others' differences from it; "" where all
    are surely behind."""
    if max(d.estimate.n for d in others.values()) < 2:
        return "one seed cannot tell methods apart"
    level = [name for name, d in others.items() if d.p >= SURE]
    if len(level) == len(others) > NAMED:
        return f"none of the {len(level)} others can be told from it"
    return f"{listed(level, len(others))} cannot be told from it" if level else ""


def surely(differences: Mapping[str, Difference], sign: int) -> list[str]:
    """Whose difference is surely above 0 (sign 1) or below it (sign -1)."""
    return [n for n, d in differences.items() if d.p < SURE and sign * d.estimate.mean > 0]


def correlation_words(rank: Estimate) -> str:
    """A correlation with its interval.

    >>> correlation_words(Estimate(0.6, -0.49, 0.96, 6))
    '0.60 (95 % interval −0.49 to 0.96)'
    """
    return f"{signed(rank.mean)} (95 % interval {signed(rank.low)} to {signed(rank.high)})"


def shortened(names: Iterable[str]) -> dict[str, str]:
    """Names without the words, parted by "_", with which they all end.

    >>> list(shortened(["features:here/cub_224px.npz", "features:cars_224px.npz"]).values())
    ['cub', 'cars']
    """
    files = {name: PurePath(name.rpartition(":")[2]).name.removesuffix(".npz") for name in names}
    if len(set(files.values())) < len(files):  # of one name in several folders
        return {name: name for name in files}
    words = {name: file.split("_") for name, file in files.items()}
    ends = zip(*(reversed(parts[1:]) for parts in words.values()), strict=False)
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, ends)))
    return {name: "_".join(parts[: len(parts) - shared]) for name, parts in words.items()}
