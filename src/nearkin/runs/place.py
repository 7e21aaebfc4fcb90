"""A Place is where and how runs are done: their machine, not their numbers."""

from __future__ import annotations

from dataclasses import dataclass

SAVE_SECONDS = 30.0  # of training between two checkpoints within an epoch
MOST_THREADS = 1024  # more than any machine's cores; a million end torch without a word


@dataclass(frozen=True)
class Place:
    """Where and how runs are done: what changes the cost of a row, but not its numbers.

    But for two fields, and a row says of both how they were. threads: under another number of them
    sums are taken in another order, so that the last bits differ, and with them, over many steps,
    perhaps a digit of a metric; rows are equal to the last bit where `machine.threads` is.
    skip_bad: a row whose pictures were not all there says so in its variant.
    """

    root: str | None = None  # folder of the data sets
    device: str = "auto"
    download: bool = False
    skip_bad: bool = False
    threads: int = 0  # of each process; 0: torch's own choice
    save_seconds: float = SAVE_SECONDS
    private: bool = False  # no picture of one's own is copied into results
    made_by: str = ""  # the backbone that made stored features whose file does not tell it
    made_size: int = 0  # its side in pixels

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must be 0 to {MOST_THREADS}, got {self.threads}")
