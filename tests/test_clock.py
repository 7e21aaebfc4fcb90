"""Claim: seconds of training, of evaluation and of saving are told apart, and none is lost."""

from types import SimpleNamespace
from typing import Any

import pytest

from nearkin.runs import clock


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time, which the tests put forward."""
    time = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])
    return time


def begun(seconds: float = 0.0, step: int = 0) -> tuple[clock.Clock, Any]:
    recipe = SimpleNamespace(batch=8)
    run: Any = SimpleNamespace(seconds=seconds, other_seconds=0.0, step=step, recipe=recipe)
    peak: Any = SimpleNamespace(megabytes=lambda: 1)
    return clock.Clock(run, peak), run


def test_each_second_is_counted_once(now):
    of, run = begun(seconds=5.0)
    now[0] += 2  # training

    def evaluation():
        now[0] += 3

    of.outside(evaluation)
    now[0] += 1
    of.tick()
    of.outside(evaluation)
    assert (run.seconds, run.other_seconds) == (5.0 + 2 + 1, 6.0)


def test_a_save_is_due_so_long_after_the_last(now):
    of, _ = begun()
    now[0] += 4
    assert not of.save_is_due(5)
    now[0] += 2
    assert of.save_is_due(5)
    of.outside(lambda: None)
    assert not of.save_is_due(5)


def test_images_a_second_are_those_of_training_alone(now):
    of, run = begun(step=3)
    run.step, now[0] = 13, now[0] + 4
    assert of.images_per_second() == 10 * 8 / 4

    def evaluation():
        now[0] += 50

    of.outside(evaluation)
    run.step, now[0] = 18, now[0] + 1
    assert of.images_per_second() == 5 * 8 / 1
