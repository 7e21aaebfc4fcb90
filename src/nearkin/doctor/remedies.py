"""The settings that cure: what a diagnosis says is to be changed."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from nearkin.doctor.history import History

STEP = 0.05
"""Change of the weights in the first step that a cured learning rate makes."""


def of_rate(history: History, most: float = 0.0, least: float = 0.0) -> dict[str, Any]:
    """The learning rate by which the first step would change the weights by a hundredth of their
    size; at most, or at least, this many times that of the run."""
    lr = history.known.get("lr")
    if not lr:
        return {}
    moved = history.looks[0].moved if history.looks else None
    factor = STEP / moved if moved and isfinite(moved) else most or 3 * least
    factor = min(factor, most) if most else max(factor, least)
    return {"lr": float(f"{lr * factor:.0e}")}


def of_memory(known: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The cure of memorised classes: fewer epochs, where new items did best after this share of
    them; where that was at the very start, smaller steps."""
    if known.get("epochs") and share * known["epochs"] >= 1:
        return {"epochs": round(share * known["epochs"])}
    return {"lr": known["lr"] / 30} if known.get("lr") else {}


def of_collapse(known: Mapping[str, Any]) -> dict[str, Any]:
    """The cure of a collapse, from the settings that are known to bring it."""
    if known.get("miner"):
        return {"miner": ""}
    options = dict(known.get("loss_options") or {})
    if options.get("form") == "printed":
        return {"loss_options": {**options, "form": "right"}}
    if known.get("weight_decay", 0) > 1e-3:
        return {"weight_decay": 0.0}
    layers = dict(known.get("backbone_options") or {})
    if 0 < layers.get("hidden", 0) < known.get("dim", 0):
        return {"backbone_options": {**layers, "hidden": 0}}
    for name in ("margin", "neg_margin"):
        if 0 <= options.get(name, 1) < 0.1:
            return {"loss_options": {**options, name: 1.0}}
    return {"lr": known["lr"] / 10} if known.get("lr") else {}
