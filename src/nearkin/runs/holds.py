"""What holds weights near their start, or near what they were: decay towards it, and averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nearkin.runs.recipe import Recipe


class Hold:
    """The decay towards the start and the running average of a backbone's weights w.

    After each step, at the learning rate r of that step:

        w    <-  w + r λ (w_0 - w)          λ: start_decay
        avg  <-  a avg + (1 - a) w          a: average; it begins at w_0

    Source: Li, Grandvalet & Davoine, Explicit inductive bias for transfer learning with
    convolutional networks, ICML 2018 (L²-SP). Differs: decoupled from the gradient, as in AdamW.
    Polyak & Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    """

    def __init__(self, recipe: Recipe, backbone: nn.Module, optimizer: torch.optim.Optimizer):
        self.decay = recipe.start_decay
        self.groups: list[tuple[dict, list, list]] = []  # (group, parameters, their start)
        own = {id(p) for p in backbone.parameters()}
        for group in optimizer.param_groups if self.decay else ():
            held = [p for p in group["params"] if id(p) in own]
            if held:
                self.groups.append((group, held, [p.detach().clone() for p in held]))
        self.averaged: Any = None
        if recipe.average:
            self.averaged = AveragedModel(
                backbone, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True
            )
            self.averaged.update_parameters(backbone)

    @torch.no_grad()
    def after_step(self, backbone: nn.Module) -> None:
        """Draw the weights back to their start, and add them to their average."""
        for group, held, start in self.groups:
            torch._foreach_lerp_(held, start, min(1.0, group["lr"] * self.decay))
        if self.averaged is not None:
            self.averaged.update_parameters(backbone)

    def of(self, backbone: Any) -> Any:
        """What is evaluated and kept: the average, or the backbone itself where there is none."""
        return backbone if self.averaged is None else self.averaged.module

    def state_dict(self) -> dict[str, Any]:
        """The average, as tensors by name; the start is that of the recipe."""
        return {} if self.averaged is None else self.averaged.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.averaged is not None:
            self.averaged.load_state_dict(state)
