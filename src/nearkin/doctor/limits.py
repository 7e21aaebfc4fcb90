"""The limits from which on the rules call a run or a set ill.

They were chosen on other runs than those of the zoo (tests/zoo.py), as docs/doctor.md says.
"""

from __future__ import annotations

LIMITS: dict[str, float] = {
    "steps": 30,  # before so many no run is judged by its course
    "spread": 1e-3,  # of a point: variance as a share of squared length, lift below 0.5
    "spread by angle": 5e-3,  # the same of unit embeddings, lift below 0.7
    "spread by chance": 1e-2,  # of a point with a lift below 0.3
    "spread of nothing": 1e-6,  # of a point whatever its neighbours are
    "distances": 0.02,  # of a point: mean distance as a share of that at the start
    "line": 0.95,  # share of the variance in one direction
    "few": 1 / 15,  # directions with 95 % of the variance beyond two, as a share of those possible
    "useless": 0.5,  # lift without the main directions, as a share of the whole lift
    "useless lift": 0.25,  # lift without the main directions, whatever the whole is
    "good": 0.9,  # lift from which on nobody is ill for want of learning
    "wasted": 1 / 8,  # directions with 99 % of the variance, as a share of the dimension
    "wasted whatever": 1 / 12,  # the same, where they are about as many as the classes need, from
    "large": 160,  # so many dimensions on
    "no nearer": 0.25,  # lift below which kin are no nearer than others
    "flat": 0.05,  # drift of the loss over the last half
    "still": 0.01,  # the same, where nobody knows the loss of a collapse
    "level": 0.1,  # distance of the loss from that of a collapse, as a share of it
    "shrunk": 0.1,  # distances as a share of the margin
    "zeros": 0.8,  # share of steps without a loss
    "solved": 0.95,  # lift from which on it is no wonder that the loss is 0
    "unmoved": 0.5,  # share of the proxies
    "unused": 0.75,  # share of the proxies of classes that have several
    "others": 30,  # items of other classes, of fewer no share is judged
    "swallowed": 0.5,  # share of the items of all other classes
    "astray": 100.0,  # the same, where nobody knows the weights
    "risen": 2.0,  # loss at the end over that at the start
    "moved": 0.05,  # change of the weights in one step, as a share of their size
    "lost": 20.0,  # change of the weights since the start, the first step being as large as they
    "far": 5.0,  # change of the weights since the start, with a loss that has risen
    "quite far": 2.0,  # the same with a loss that is ten times that at the start
    "distances moved": 0.05,  # the same of distances, where nobody knows the weights
    "travelled": 0.02,  # change of the weights since the start, as a share of their size
    "fallen": 0.05,  # of the loss, as a share of its start
    "forgotten": 0.08,  # R@1 on new items below its best
    "displaced": 0.5,  # way from a batch's own statistics to running ones, as a share of the spread
    "leaks": 0.005,  # share of the test items, as training items
    "copies": 0.01,  # share of the items
    "decided": 0.2,  # share of the items that lie deep inside a class; of fewer no label is judged
    "wrong": 0.03,  # share of the items that lie deep inside a class
    "whitened": 0.05,  # R@1 once all directions have one variance, above R@1 as it is
    "sure": 3.0,  # standard errors between the two
    "broad": 1 / 4,  # directions that hold 90 % of the variance, as a share of the dimension
}


def percent(share: float) -> str:
    """A share in percent, with as many digits as it needs."""
    return f"{100 * share:.3g} %"
