"""Fresh processes know what this one does, and imports cost each of them nothing."""

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from nearkin import registry
from nearkin.runs.fresh import IMPORTED, begin, deaf, fresh, told
from nearkin.runs.workers import begin_worker


def seen() -> tuple[str | None, bool, bool]:
    """What a process finds: a variable, whether it hears Ctrl-C, and whether an entry is there."""
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return os.environ.get("NEARKIN_TRIED"), blocked, "tried" in registry.LOSSES


def found() -> tuple[str | None, bool, bool]:
    with ProcessPoolExecutor(1, fresh(), begin_worker, (told(),)) as pool, deaf():
        return pool.submit(seen).result()


def test_it_is_told_what_has_changed_since_the_first_was_started(monkeypatch):
    monkeypatch.delenv("NEARKIN_TRIED", raising=False)
    assert found() == (None, True, False)
    monkeypatch.setenv("NEARKIN_TRIED", "anew")
    monkeypatch.setitem(registry.LOSSES, "tried", "nearkin.losses:Triplet")
    assert found() == ("anew", True, True)
    monkeypatch.delenv("NEARKIN_TRIED")
    assert found() == (None, True, True)


def test_ctrl_c_is_heard_again_by_the_one_that_started_them():
    with deaf():
        assert seen()[1]
    assert not seen()[1]


def test_a_process_that_nobody_started_has_none_to_end_with():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with pytest.raises(AssertionError, match="started by another"):
            begin(told())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def imported() -> set[str]:
    """What a process had imported before it was told anything."""
    return {name for name in IMPORTED if name in sys.modules}


@pytest.mark.skipif(sys.platform != "linux", reason="copies of a process are not safe elsewhere")
def test_what_every_run_imports_is_there():
    with ProcessPoolExecutor(1, fresh()) as pool:
        assert pool.submit(imported).result() == set(IMPORTED)
