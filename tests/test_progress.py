"""Progress where there is no terminal: lines now and then, in place of a bar."""

import io
import sys

from nearkin.runs import log
from nearkin.runs.log import EVERY, Counted, Lines


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_long_run_writes_a_line_every_half_a_minute():
    written, clock = [], Clock()
    lines = Lines(written.append, clock)
    lines.expect(12)
    lines.start("triplet, 64-D", total=600, done=100)
    for step in range(101, 351):
        clock.now += 1
        lines.advance(step, 0.25, 3000.0)
    assert len(written) == 250 // EVERY
    assert written[0] == (
        "nearkin: run 1 of 12, triplet, 64-D: step 130 of 600, loss 0.2500, 3,000 images/s, "
        "8 min left"
    )
    lines.finish("done so")
    assert written[-1] == "1/12 done so"


def test_a_short_run_writes_its_end_alone():
    written, clock = [], Clock()
    lines = Lines(written.append, clock)
    lines.start("triplet", total=10, done=0)
    for step in range(1, 11):
        clock.now += 1
        lines.advance(step, 0.25, 3000.0)
    lines.finish("done so")
    assert written == ["done so"]


def test_steps_without_a_loss_take_no_line():
    written, clock = [], Clock()
    lines = Lines(written.append, clock)
    lines.start("triplet", total=10, done=0)
    clock.now += 2 * EVERY
    lines.advance(1, None, 0.0)
    assert not written
    lines.advance(2, 0.5, 10.0)
    assert len(written) == 1


def test_embedding_is_counted():
    written, clock = [], Clock()
    lines = Lines(written.append, clock)
    for done in range(0, 1001, 10):
        lines.count("embedding", done, 1000)
        clock.now += 1
    assert written[0] == "nearkin: embedding: 300 of 1,000, 70 s left"
    assert len(written) == 3


def test_many_runs_are_one_number():
    written, clock = [], Clock()
    counted = Counted(Lines(written.append, clock), "trials")
    counted.expect(100)
    for _ in range(100):
        counted.start("triplet, 64-D", total=10, done=0)
        counted.advance(1, 0.5, 100.0)
        clock.now += 1
        counted.finish("a line of this run")
    counted.say("a word beside")
    assert written[0] == "nearkin: trials: 30 of 100, 70 s left"
    assert written[-1] == "nearkin: a word beside"
    assert len(written) == 4


def test_a_log_gets_lines_and_a_terminal_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with log.bar() as shown:
        assert isinstance(shown, Lines)
        shown.say("features take a linear head")
    assert sys.stderr.getvalue() == "nearkin: features take a linear head\n"  # type: ignore
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with log.bar() as shown:
        assert isinstance(shown, log.Bar)
        shown.count("embedding", 0, 8)
        shown.count("embedding", 4, 8)
        shown.start("triplet", 4, 0)
        shown.advance(2, 0.5, 10.0)
        shown.finish("a run")
        shown.count("embedding", 8, 8)
    assert "a run" in sys.stderr.getvalue()  # type: ignore
