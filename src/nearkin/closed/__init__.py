"""Closed forms: linear maps that make near mean kin without a gradient, or with L-BFGS alone.

form = nk.closed.ClosedForm("whitened", dim=64, power=0.5)
z = form.fit(features, labels).transform(others)
"""

from typing import TYPE_CHECKING, Any

from nearkin.closed.catalogue import UNLABELLED, check_options, solve
from nearkin.closed.forms import LinearMap
from nearkin.closed.moments import Items, Moments, Summary, powered
from nearkin.registry import FORMS

if TYPE_CHECKING:
    from nearkin.closed.estimator import PLDA, ClosedForm

__all__ = [
    "FORMS",
    "PLDA",
    "UNLABELLED",
    "ClosedForm",
    "Items",
    "LinearMap",
    "Moments",
    "Summary",
    "check_options",
    "powered",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name not in ("PLDA", "ClosedForm"):
        raise AttributeError(f"nearkin.closed has no {name!r}")
    from nearkin.closed import estimator  # with scikit-learn, which takes seconds to import

    return getattr(estimator, name)
