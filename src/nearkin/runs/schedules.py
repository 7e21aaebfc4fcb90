"""Schedules: the factor of every learning rate, by the share of the run that is done, in 0..1."""

from math import cos, pi


def constant(done: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(done: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + cos(pi * done)) / 2


def step(done: float) -> float:
    """1, a tenth from 40 % of the run on, a hundredth from 80 % on.

    >>> [round(step(done), 3) for done in (0.3, 0.4, 0.8)]
    [1.0, 0.1, 0.01]
    """
    return 0.1 ** ((done >= 0.4) + (done >= 0.8))
