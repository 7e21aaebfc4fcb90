"""Stored features without what ails them.

Dimensions: N items, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nearkin.doctor.illness import Diagnosis
from nearkin.doctor.shape import principal


def healed(arrays: Mapping[str, np.ndarray], found: Sequence[Diagnosis]) -> dict[str, Any]:
    """The arrays of a file of features after the cures of these diagnoses.

    Items that ail are left out: of every array with one entry an item. Badly scaled features get
    mean 0 and, in each principal direction of the training items, variance 1; wasted dimensions
    are cut to the first principal directions.
    """
    count = len(arrays["x"])
    names = {each.name: each for each in found}
    out = {item for each in found for item in each.items}
    keep = np.array([i for i in range(count) if i not in out])
    if not len(keep):
        raise ValueError("a cure would leave no item")
    made: dict[str, Any] = {
        name: array[keep] if array.ndim and len(array) == count else array
        for name, array in arrays.items()
    }
    x = torch.from_numpy(np.asarray(made["x"], np.float32))
    teaches = torch.from_numpy(
        np.asarray(made.get("split", ["train"] * len(x))).astype(str) == "train"
    )
    taught = x[teaches] if teaches.any() else x
    values, axes = principal(taught - taught.mean(0))
    turned = (x - taught.mean(0)) @ axes
    if "features badly scaled" in names:
        deviation = (values / max(len(taught) - 1, 1)).sqrt()
        made["x"] = (turned / (deviation + 1e-3 * deviation.median())).float().numpy()
    elif "dimension wasted" in names:
        made["x"] = turned[:, : names["dimension wasted"].flags["dim"]].numpy()
    if made["x"] is not arrays["x"]:
        made.pop("made_by", None)  # it is no Model's embedding any longer
    return made
