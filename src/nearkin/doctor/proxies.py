"""Proxies of a loss: which have never moved, and which no item of their class is near to.

Dimensions: P proxies, of C classes, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearkin.tensors import unit

NAMES = {"proxies", "fc", "W", "weight", "classifier", "centers"}
SEEN = 3
"""Items of a class for each of its proxies, from which on an unused one is idle."""


class Proxies:
    """The proxies of a loss, followed from look to look.

    Args:
        parameter: (P, D), or (D, P) where they stand `across`.
        classes: C; 0: nobody knows, and then only their movement is followed.
    """

    def __init__(self, parameter: nn.Parameter, across: bool, classes: int):
        self.parameter, self.across = parameter, across
        self.first = self.rows().clone()
        count = len(self.first)
        self.per_class = count // classes if classes and count % classes == 0 else 1
        self.used = torch.zeros(count, dtype=torch.bool)
        self.seen = torch.zeros(count // self.per_class, dtype=torch.int64)

    def rows(self) -> Tensor:
        """(P, D) as they are now."""
        x = self.parameter.detach().float()
        return (x.T if self.across else x).cpu()

    def look(self, x: Tensor, labels: Tensor) -> tuple[float, float | None]:
        """Shares of the proxies that have not moved, and of those that are not used."""
        now = self.rows()
        moved = (now - self.first).norm(dim=1) > 1e-6 * self.first.norm(dim=1)
        return 1 - moved.float().mean().item(), self.unused(now, x.float().cpu(), labels.cpu())

    def unused(self, now: Tensor, x: Tensor, labels: Tensor) -> float | None:
        """Of classes with several proxies each, the share that was never the nearest of its class
        to an item, once enough items were seen."""
        known = (labels >= 0) & (labels < len(self.seen))
        if self.per_class < 2 or not known.all():
            return None
        near = (unit(x) @ unit(now).T).unflatten(1, (-1, self.per_class))  # (B, C, P / C)
        own = near[torch.arange(len(labels)), labels]
        self.used[labels * self.per_class + own.argmax(1)] = True
        self.seen += torch.bincount(labels, minlength=len(self.seen))
        enough = (self.seen >= SEEN * self.per_class).repeat_interleave(self.per_class)
        return (~self.used[enough]).float().mean().item() if enough.any() else None


def proxies_of(criterion: object, dim: int) -> Proxies | None:
    """The proxies that a loss learns; None where it has none that anybody would know."""
    for name, parameter in criterion.named_parameters() if isinstance(criterion, nn.Module) else ():
        fits = parameter.requires_grad and parameter.ndim == 2 and dim in parameter.shape
        if fits and NAMES & set(name.split(".")):
            return Proxies(parameter, parameter.shape[1] != dim, classes_of(criterion))
    return None


def classes_of(criterion: object) -> int:
    """How many classes a loss, or what it wraps, is made for; 0 where it does not say."""
    for part in criterion.modules() if isinstance(criterion, nn.Module) else ():
        for name in ("classes", "num_classes"):
            value = getattr(part, name, None)
            if isinstance(value, int) and value > 1:
                return value
    return 0
