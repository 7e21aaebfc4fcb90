"""The similarity below which a photograph counts as unknown, made on an index's labelled items."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np


def calibrated(
    index: Any, false_accept: float, confidence: float, seed: int
) -> tuple[Any, dict[str, Any] | None]:
    """The threshold, and what the index stores of it: None where nothing can be promised.

    Raises:
        ValueError: the index holds fewer than two labels.
    """
    from nearkin.measure.verify import threshold

    _, labels, vectors = index.vectors()
    labelled = np.array([label is not None for label in labels])
    kinds = np.array([label for label in labels if label is not None], dtype=str)
    if len(set(kinds.tolist())) < 2:
        raise ValueError(f"{index.path}: a threshold takes photographs of two labels or more")
    found = threshold(
        vectors[labelled],
        kinds,
        over="nearest",
        far=false_accept,
        confidence=confidence,
        metric=index.description.metric,
        seed=seed,
    )
    kept = None
    if found.value is not None:
        kept = {**asdict(found), "identity": index.description.identity, "items": len(kinds)}
    return found, kept
