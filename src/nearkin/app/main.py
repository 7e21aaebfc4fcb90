"""The command line: `nearkin list`, `train`, `study`, `report`, `evaluate`, `embed`, `data`.

Bad input ends in one line on stderr and exit code 2; an interrupt in 130. Whatever was finished
before is stored, and the same command goes on from there.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nearkin.app.parse import parse
from nearkin.extras import MissingExtra, optional
from nearkin.names import TOO_LARGE, visible
from nearkin.stopping import code_of

COMMANDS = {
    "list": "nearkin.app.list:list_names",
    "train": "nearkin.app.train:train",
    "study": "nearkin.app.study:study",
    "report": "nearkin.app.report:report",
    "choose": "nearkin.app.choose:choose",
    "evaluate": "nearkin.app.evaluate:evaluate",
    "doctor": "nearkin.app.doctor:doctor",
    "embed": "nearkin.app.embed:embed",
    "data": "nearkin.app.data:data",
    "cache": "nearkin.app.cache:cache",
    "index": "nearkin.app.index:index",
    "search": "nearkin.app.index:search",
    "calibrate": "nearkin.app.index:calibrate",
    "explore": "nearkin.app.explore:explore",
    "serve": "nearkin.app.serve:serve",
    "export": "nearkin.app.export:export",
    "check": "nearkin.app.export:check",
    "completion": "nearkin.app.completion:completion",
}


NO_THREADS = "can't start new thread"  # what Python says


def main(words: Sequence[str] | None = None) -> None:
    """Carry out one command; bad input is one line and exit code 2."""
    try:
        with one_line_warnings(), optional():
            words = sys.argv[1:] if words is None else words
            refuse_no_working_folder()
            refuse_ranks(words)
            parse(words, COMMANDS)()
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except (ValueError, OSError, MissingExtra) as error:
        if getattr(error, "elsewhere", False):  # another process of the run says it
            raise SystemExit(2) from None
        leave(str(error))
    except (MemoryError, OverflowError, RuntimeError, TypeError, ImportError) as error:
        if NO_THREADS in str(error):
            leave(f"{NO_THREADS}: this machine, or a limit set on it, allows no more of them")
        if not (isinstance(error, MemoryError) or re.search(TOO_LARGE, str(error))):
            raise
        leave(f"out of memory or range: {one_line(error)[:200]}")
    except KeyboardInterrupt as interrupt:
        leave("stopped; the same command goes on from here", code=code_of(interrupt))


def refuse_no_working_folder() -> None:
    """Libraries that are loaded later end the process where its working folder was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError("the working folder is gone: change to one that is there") from None


def refuse_ranks(words: Sequence[str]) -> None:
    """Only a training is carried out by several processes that torchrun has started."""
    if words and words[0] != "train" and "TORCHELASTIC_RUN_ID" in os.environ:
        raise ValueError(
            f"torchrun starts the processes of one `nearkin train`, not of {words[0]!r}"
        )


def leave(why: str, code: int = 2) -> None:
    """End the program with one line on stderr."""
    print("nearkin:", one_line(why), file=sys.stderr)
    raise SystemExit(code) from None


def one_line(text: object) -> str:
    """A text without its line breaks, and with what a terminal would act on as escapes."""
    return visible(" ".join(str(text).split()))


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Warnings in one line each, without the code that they come from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"nearkin: {one_line(message)}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before
