"""Where NaN or infinity was born: the input, a layer, a weight by its gradient, or the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.doctor.history import Birth


def birth_of(
    step: int, embeddings: Tensor, module: nn.Module | None, inputs: Sequence[Any], criterion: Any
) -> Birth:
    """In which step, and in which tensor, the first number was born that is not finite.

    The loss of this step is not finite, and that of the step before was. Where a weight is not
    finite, the step before bore it, in the gradient of the last such weight: gradients flow from
    the last layer to the first.
    """
    for number, one in enumerate(inputs):
        if isinstance(one, Tensor) and bad(one):
            rows = (~one.flatten(1).isfinite().all(1)).nonzero() if one.ndim > 1 else [[0]]
            return Birth(step, f"the input{number or ''} of the network, item {int(rows[0][0])}")
    for part, name in ((criterion, "the loss's "), (module, "")):
        if isinstance(part, nn.Module):
            odd = [key for key, p in part.named_parameters() if bad(p)]
            if odd:
                return Birth(max(step - 1, 1), f"the gradient of {name}{odd[-1]}")
            odd = [key for key, b in part.named_buffers() if bad(b)]
            if odd:
                return Birth(step, f"{name}{odd[0]}")
    if bad(embeddings):
        return Birth(step, layer_of(module, inputs) or "the embeddings")
    name = type(criterion).__name__ if criterion is not None else "loss"
    return Birth(step, f"the value of the {name}, whose embeddings are finite")


def bad(x: Tensor) -> bool:
    return x.is_floating_point() and not bool(x.detach().isfinite().all())


@torch.no_grad()
def layer_of(module: nn.Module | None, inputs: Sequence[Any]) -> str:
    """The first layer that makes what is not finite of what is, when the batch goes through again;
    "" where none does."""
    if module is None or not inputs:
        return ""
    found: list[str] = []
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    hooks = []
    for name, layer in module.named_modules():
        if next(layer.children(), None) is None:

            def look(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor) and bad(output) and not found:
                    found.append(name)

            hooks.append(layer.register_forward_hook(look))
    try:
        with torch.random.fork_rng(devices=[]):
            module(*inputs)
    except (RuntimeError, ValueError, TypeError):
        return ""
    finally:
        for hook in hooks:
            hook.remove()
        for name, buffer in module.named_buffers():
            if name in before:
                buffer.copy_(before[name])
    return f"the output of {found[0] or type(module).__name__}" if found else ""
