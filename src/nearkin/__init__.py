"""Nearkin: embeddings in which near means kin.

    import nearkin as nk

    splits = nk.load("mnist-5k")
    net = nk.Network(28, 28, 1, 2).add_conv(5, 5, 2, 2, 32).add_fc(256)
    loss = nk.losses.RatioTriplet()
    model = nk.fit(net, loss, splits, epochs=4)

What is behind a name is imported when it is first used, so that `import nearkin` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nearkin.extras import optional

if TYPE_CHECKING:
    from nearkin import closed, data, graphs, losses, measure, models, report, runs, studies
    from nearkin.data import load
    from nearkin.doctor import Doctor
    from nearkin.measure import Accumulator, evaluate, neighbours, verify
    from nearkin.models import Network
    from nearkin.models.model import Model
    from nearkin.runs.engine import Place, run
    from nearkin.runs.estimator import Embedding
    from nearkin.runs.executors import complete
    from nearkin.runs.fit import Callback, fit
    from nearkin.runs.recipe import Recipe
    from nearkin.search.index import Index
    from nearkin.studies.ask import study

__version__ = "0.2.0"

WINGS = ("closed", "models", "data", "graphs", "losses", "measure", "report", "runs", "studies")
NAMES = {
    "Accumulator": "nearkin.measure",
    "Callback": "nearkin.runs.fit",
    "Doctor": "nearkin.doctor",
    "Embedding": "nearkin.runs.estimator",
    "Index": "nearkin.search.index",
    "Model": "nearkin.models.model",
    "Network": "nearkin.models",
    "Place": "nearkin.runs.engine",
    "Recipe": "nearkin.runs.recipe",
    "complete": "nearkin.runs.executors",
    "evaluate": "nearkin.measure",
    "fit": "nearkin.runs.fit",
    "load": "nearkin.data",
    "neighbours": "nearkin.measure",
    "run": "nearkin.runs.engine",
    "study": "nearkin.studies.ask",
}
MODULES = {"verify": "nearkin.measure.verify"}
__all__ = [
    "Accumulator",
    "Callback",
    "Doctor",
    "Embedding",
    "Index",
    "Model",
    "Network",
    "Place",
    "Recipe",
    "closed",
    "complete",
    "data",
    "evaluate",
    "fit",
    "graphs",
    "load",
    "losses",
    "measure",
    "models",
    "neighbours",
    "report",
    "run",
    "runs",
    "studies",
    "study",
    "verify",
]


def __getattr__(name: str) -> Any:
    with optional():
        if name in WINGS:
            return import_module(f"nearkin.{name}")
        if name in MODULES:
            return import_module(MODULES[name])
        if name in NAMES:
            return getattr(import_module(NAMES[name]), name)
    raise AttributeError(f"nearkin has no {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
