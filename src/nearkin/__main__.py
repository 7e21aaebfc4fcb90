"""`nearkin` and `python -m nearkin`, as a process of its own.

An interrupt is one line from the first moment on, and a reader who has seen enough, as in
`nearkin list | head -1`, ends the program quietly.
"""

import io
import os
import sys
import threading

from nearkin import stopping
from nearkin.extras import MissingExtra, optional


def main() -> None:
    """The command line, as a process of its own."""
    open_closed_streams()
    threading.excepthook = leave_to_main_thread
    for stream in (sys.stdout, sys.stderr):  # names hold what a terminal's encoding may lack
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stopping.listen()
    try:
        try:
            with optional():
                from nearkin.app.main import main as carry_out

            carry_out()
        finally:
            sys.stdout.flush()
    except MissingExtra as error:
        print(f"nearkin: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as error:
        print("nearkin: stopped", file=sys.stderr)
        raise SystemExit(stopping.code_of(error)) from None
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):  # what is still to be written goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_closed_streams() -> None:
    """What was closed, as by `>&-`, leads nowhere, and its number is no file's that is opened."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def leave_to_main_thread(failed: threading.ExceptHookArgs) -> None:
    """Of a file that TensorBoard's thread cannot write, its next number tells the main thread."""
    of_tensorboard = type(failed.thread).__module__.startswith("tensorboard.")
    if not (of_tensorboard and isinstance(failed.exc_value, OSError)):
        threading.__excepthook__(failed)


if __name__ == "__main__":
    main()
