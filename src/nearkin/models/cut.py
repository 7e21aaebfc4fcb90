"""A pretrained network cut in two before its last stages, so that these can be trained alone.

Both parts share the network's modules: what one of them learns, the network has learnt.

Dimensions: B batch, C channels and h x w cells of the feature maps at the cut, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.models.features import Backbone
from nearkin.models.network import Shape
from nearkin.models.pretrained import Trunk, first_line

TOLERANCE = 1e-4
"""The largest relative difference between the two parts and the whole that is one of rounding."""


class Before(nn.Module):
    """Feature maps (B, C, h, w) of pictures (B, 1 or 3, height, width): a network up to the cut."""

    def __init__(self, trunk: Any, cut: str):
        super().__init__()
        self.pixels, self.model = trunk.pixels, side(trunk.model, cut.split("."), before=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.pixels(x))


class After(nn.Module):
    """Features (B, F) of feature maps (B, C, h, w): a network from the cut to its pooling."""

    def __init__(self, trunk: Any, cut: str):
        super().__init__()
        self.pool, self.model = trunk.pool, side(trunk.model, cut.split("."), before=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.model(x))


def after(module: Any, cut: str) -> nn.Module:
    """What of a backbone, or of its trunk, comes after the cut."""
    if hasattr(module, "trunk"):
        return Backbone(After(module.trunk, cut), module.head)
    return After(module, cut)


def side(model: Any, path: Sequence[str], before: bool) -> Any:
    """A twin of a model in which all modules on the other side of the one at `path` pass on what
    they get; a model calls its modules in the order in which it has them. What is not changed is
    shared."""
    name, *rest = path
    twin, passed = copy.copy(model), False
    twin._modules = dict(model._modules)
    for child, module in model._modules.items():
        here, passed = child == name, passed or child == name
        if here and rest:
            twin._modules[child] = side(module, rest, before)
        elif passed == before and module is not None:
            twin._modules[child] = nn.Identity()
    return twin


def stages_of(model: Any) -> list[str]:
    """The names of a model's stages: the modules that end timm's levels, with those beside them in
    a sequence.

    >>> from timm import create_model
    >>> stages_of(create_model("resnet18"))
    ['act1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    found: dict[str, None] = {}
    for level in getattr(model, "feature_info", ()):
        parent, _, name = level["module"].rpartition(".")
        within = model.get_submodule(parent)
        if name.isdecimal() and isinstance(within, nn.Sequential):
            found |= dict.fromkeys(f"{parent}.{child}" for child in within._modules)
        else:
            found[level["module"]] = None
    return list(found)


def cut_before(trunk: nn.Module, last: int, input_shape: Shape, name: str) -> tuple[str, Shape]:
    """Where a network is cut, as the name of a module, so that its last stages come after it.

    Args:
        trunk: of a pretrained network.
        last: how many stages.
        input_shape: of a picture.
        name: of the network, for messages.

    Returns:
        The name, and the shape (C, h, w) of a feature map there.

    Raises:
        ValueError: it has no such stages, or its parts one after the other are not the whole.
    """
    if not isinstance(trunk, Trunk) or trunk.levels > 1:
        raise ValueError(
            f"tail={last} wants a pretrained network (lite0, lite2, timm:NAME) whose last feature "
            f"map alone is read, got {name}"
        )
    stages = stages_of(trunk.model)
    if not last < len(stages):
        most = f"at most {len(stages) - 1}" if len(stages) > 1 else "a network that has stages"
        raise ValueError(f"tail={last}: wanted {most}: {name} has {len(stages)} stages")
    cut = stages[-last]
    x = torch.linspace(-1, 1, 3 * input_shape[1] * input_shape[2]).view(1, 3, *input_shape[1:])
    training = trunk.training
    try:
        with torch.no_grad():
            whole = trunk.eval()(x)
            maps = Before(trunk, cut).eval()(x)
            apart = (After(trunk, cut)(maps) - whole).norm() / whole.norm().clamp_min(1e-12)
    except (RuntimeError, AttributeError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{name} cannot be cut before {cut}: {first_line(error)}") from None
    finally:
        trunk.train(training)
    if maps.ndim != 4 or not apart <= TOLERANCE:
        raise ValueError(f"{name} cannot be cut before {cut}: its parts are not the whole")
    return cut, tuple(maps.shape[1:])
