"""The full method, ProxyGML with all its modules: its trials, and the settings that they choose."""

from __future__ import annotations

from typing import Any

from nearkin.studies.shared import controls
from nearkin.studies.shared.sets import CUB, proxygml
from nearkin.studies.shared.tuning import SETTLED, WHITENED, settle, trials
from nearkin.studies.study import Recipes, Rows

FULL = "ProxyGML"


def search(data: str = CUB, epochs: int = 0, tune: bool = True, start: str = WHITENED) -> Recipes:
    """The trials of the full method, and of the closed forms beside it."""
    if not tune:
        return {}
    return trials(FULL, proxygml(data, epochs, {}, start)) | controls.search(data, start)


def settings_of_full(
    data: str, epochs: int, searched: Rows | None, start: str, name: str = FULL
) -> dict[str, Any]:
    """The settings and epochs that the trials of the full method, by this name, chose."""
    best = settle(proxygml(data, epochs, {}, start), searched, name)
    return {name: getattr(best, name) for name in SETTLED}
