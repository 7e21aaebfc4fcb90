"""What a doctor reads off a module and a loss, without changing either."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.protocol import active_share, metric_of

TENSORS, NUMBERS = 64, 4096  # matrices whose movement is followed, and numbers of each


def metric_or_none(criterion: Any) -> str:
    """The metric that a loss says, "" where it says none."""
    try:
        return metric_of(criterion)
    except (ValueError, AttributeError, TypeError):
        return ""


def margin_of(criterion: Any) -> float | None:
    """The margin of a loss, of what it wraps, or of its one term."""
    for part in (criterion, getattr(criterion, "loss", None)):
        for name in ("margin", "neg_margin"):
            value = getattr(part, name, None)
            if isinstance(value, int | float) and value > 0:
                return float(value)
    return None


def quiet_active(criterion: Any, x: Tensor, y: Tensor) -> float | None:
    """The share of active pairs, None where the loss cannot say."""
    try:
        return active_share(criterion, x, y)
    except (AttributeError, ValueError, TypeError):
        return None


def level_of(criterion: Any, x: Tensor, y: Tensor) -> float | None:
    """The loss of a batch if all its embeddings were one; None where nobody can say."""
    try:
        with torch.random.fork_rng(devices=[]):  # of a copy, as some losses remember a batch
            value = copy.deepcopy(criterion)(x.mean(0, keepdim=True).expand_as(x).contiguous(), y)
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return None
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else None


def gradient_of(module: Any) -> float | None:
    """The norm of all gradients."""
    found = [p.grad for p in parameters_of(module) if p.grad is not None]
    return nn.utils.get_total_norm(found).item() if found else None


def parameters_of(module: Any) -> list[nn.Parameter]:
    if module is None:
        return []
    return list(module.parameters() if isinstance(module, nn.Module) else module)


def parts_of(module: Any) -> dict[str, Tensor]:
    """The first numbers of each matrix that learns, a copy."""
    found = [p for p in parameters_of(module) if p.requires_grad and p.ndim > 1][-TENSORS:]
    return {str(i): p.detach().flatten()[:NUMBERS].clone() for i, p in enumerate(found)}


def changes(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> list[float]:
    """By how much each part has changed, as a share of its size."""
    shares = []
    for name in before.keys() & now.keys():
        size = before[name].norm()
        if before[name].shape == now[name].shape and size > 1e-12:
            shares.append(((now[name] - before[name]).norm() / size).item())
    return shares
