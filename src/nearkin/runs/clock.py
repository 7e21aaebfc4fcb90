"""The clock of a run: seconds of training apart from others, images a second, memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from nearkin.runs.machine import Peak
from nearkin.runs.run import Run


class Clock:
    """Counts a run's seconds of training, and apart from them those of evaluation and saving.

    memory: megabytes that the run takes in training, as its first epoch shows them.
    """

    def __init__(self, current: Run, peak: Peak):
        self.run, self.peak = current, peak
        self.memory: int | None = None
        self.saved = self.mark = time.perf_counter()
        self.speed_mark = (current.seconds, current.step)

    def tick(self) -> None:
        """What has passed since the last tick was training."""
        now = time.perf_counter()
        self.run.seconds += now - self.mark
        self.mark = now

    def outside(self, act: Callable[[], None]) -> None:
        """Do what is not training."""
        self.tick()
        act()
        now = time.perf_counter()
        self.run.other_seconds += now - self.mark
        self.mark = self.saved = now

    def save_is_due(self, seconds: float) -> bool:
        return time.perf_counter() - self.saved > seconds

    def images_per_second(self) -> float:
        """In training, since this was last asked."""
        self.tick()
        seconds, step = self.speed_mark
        self.speed_mark = (self.run.seconds, self.run.step)
        images = (self.run.step - step) * self.run.recipe.batch
        return images / max(self.run.seconds - seconds, 1e-9)
