"""Linear layers that start from a closed form, learn in its coordinates, and end as one layer.

Adam moves every weight as far, whatever the variance of the feature that it weighs; on features
whose variances span orders of magnitude it is slow. So the layer reads whitened features while it
learns, and is multiplied out when it is done.

Dimensions: B batch, F features, H hidden units, D embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.closed.forms import LinearMap
from nearkin.models.features import Backbone, Power
from nearkin.models.stages import StagedHead


class Whitening(nn.Module):
    """x -> A (x - m): the coordinates of a closed form, which stay as they are."""

    coordinates: Tensor
    mean: Tensor

    def __init__(self, found: LinearMap):
        super().__init__()
        self.register_buffer("coordinates", torch.from_numpy(found.coordinates).float())  # (F, F)
        self.register_buffer("mean", torch.from_numpy(found.mean).float())  # (F,)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.coordinates.T


def start_head(backbone: Any, found: Sequence[LinearMap], dropout: float = 0.0) -> None:
    """Let the last layer of the backbone, one linear layer (F, D), start as this map of D rows.

    A head of several stages has a map for each level, whose rows are those of the slices in their
    order; its slices are of unit length, so only the directions count.

    dropout: share of its whitened inputs that are left out while it learns.
    """
    for (owner, name), one in zip(last_layers(backbone), found, strict=True):
        layer, rows = getattr(owner, name), len(one.components)
        if layer.out_features != rows:
            raise ValueError(
                f"wanted a map of {layer.out_features} dimensions, got one of {rows}: of a closed "
                "form there are at most as many as there are features"
            )
        set_weights(layer, torch.from_numpy(one.components))
        setattr(owner, name, nn.Sequential(Whitening(one), nn.Dropout(dropout), layer))


def drop_inputs(backbone: Any, dropout: float) -> None:
    """Leave out this share of what the last layer reads while it learns; it starts as it is."""
    for owner, name in last_layers(backbone):
        setattr(owner, name, nn.Sequential(nn.Dropout(dropout), getattr(owner, name)))


def start_mlp(backbone: Any, found: LinearMap, dropout: float = 0.0) -> None:
    """Let both layers of `mlp` together start as this map of R rows, of which the first D count.

    The first layer has each row twice, with both signs, and the last takes their difference, so
    that nothing is lost to the ReLU between: z = relu(z) - relu(-z) (Shang et al., Understanding
    and improving convolutional neural networks via concatenated rectified linear units, ICML 2016).
    Units beyond 2R stay random, and unheard.
    """
    place, (owner, name) = first_layer(backbone), last_layers(backbone)[0]
    first, last, rows = backbone.trunk[place], getattr(owner, name), len(found.components)
    if last.out_features > rows:
        raise ValueError(
            f"a start of mlp wanted a head of {rows} dimensions or fewer, half its hidden units, "
            f"got {last}"
        )
    weights, components = first.weight.detach().clone(), torch.from_numpy(found.components)
    weights[: 2 * rows] = torch.cat([components, -components])
    set_weights(first, weights)
    both = torch.zeros_like(last.weight)
    both[:, : last.out_features] = torch.eye(last.out_features)
    both[:, rows : rows + last.out_features] = -torch.eye(last.out_features)
    set_weights(last, both)
    backbone.trunk[place] = nn.Sequential(Whitening(found), nn.Dropout(dropout), first)


def set_weights(layer: nn.Linear, weight: Tensor) -> None:
    """Give a layer these weights, and no bias."""
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()


def last_layers(backbone: Any) -> list[tuple[nn.Module, str]]:
    """Where the last layer is: its owner, and its name there; of a head of several stages, where
    the layer of each level is."""
    owner, name = last_place(backbone)
    layer = getattr(owner, name)
    if isinstance(layer, StagedHead):
        return [(layer.maps, str(level)) for level in range(len(layer.maps))]
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"a start wanted a backbone that ends in one linear layer, or in one for each level, "
            f"got {type(layer).__name__}"
        )
    return [(owner, name)]


def last_place(backbone: Any) -> tuple[nn.Module, str]:
    """Where the last part of the head is: its owner, and its name there."""
    owner, name = backbone, "head"
    if not isinstance(getattr(backbone, name, None), nn.Module):
        raise ValueError(f"a start wanted a backbone with a head, got {type(backbone).__name__}")
    while isinstance(layer := getattr(owner, name), nn.Sequential) and len(layer):
        owner, name = layer, str(len(layer) - 1)
    return owner, name


def first_layer(backbone: Any) -> int:
    """The place of the first linear layer of `mlp` in its trunk."""
    return next(i for i, layer in enumerate(backbone.trunk) if isinstance(layer, nn.Linear))


def first_of(backbone: Any) -> nn.Linear:
    """The first linear layer of `mlp`."""
    return backbone.trunk[first_layer(backbone)]


def before_last(backbone: Any) -> Any:
    """The backbone without its last layer: what a start of it reads, level beside level."""
    owner, name = last_place(backbone)
    last = getattr(owner, name)
    read = last.norms if isinstance(last, StagedHead) else nn.Identity()
    return exchanged(backbone, lambda module: read if module is last else None)


def folded(backbone: Any) -> Any:
    """The backbone as it is deployed, with every started layer multiplied out: the same function,
    by layers as they were before the start. What is not changed is shared."""
    return exchanged(backbone, lambda module: one_layer(module) if is_started(module) else None)


def is_started(module: Any) -> bool:
    """Whether `start_head`, `start_mlp` or `drop_inputs` put it where one layer was."""
    kinds = [type(part) for part in module] if isinstance(module, nn.Sequential) else []
    return kinds in ([Whitening, nn.Dropout, nn.Linear], [nn.Dropout, nn.Linear])


def one_layer(started: Any) -> nn.Linear:
    """(A, m), (K, b)  ->  W = K A,  b - W m, in one linear layer."""
    whitening, layer = started[0], started[-1]
    if not isinstance(whitening, Whitening):
        return layer
    weight = layer.weight.double() @ whitening.coordinates.double()
    bias = layer.bias.double() - weight @ whitening.mean.double()
    one = copy.deepcopy(layer)
    with torch.no_grad():
        one.weight.copy_(weight)
        one.bias.copy_(bias)
    return one


def exchanged(module: Any, other: Any) -> Any:
    """A twin of a module in which `other` names what stands for some of the modules inside, None
    for the rest, which are shared."""
    if (found := other(module)) is not None:
        return found
    children = {name: exchanged(child, other) for name, child in module.named_children()}
    if all(child is getattr(module, name) for name, child in children.items()):
        return module
    twin = copy.copy(module)
    twin._modules = {**module._modules, **children}
    return twin


def halves(backbone: Any) -> tuple[nn.Sequential, Backbone]:
    """The layers at the start of a backbone that learn nothing and draw nothing, and the rest.

    What the first make of stored features is the same in every step, and needs to be made once.
    """
    trunk, head = leaves(backbone.trunk), leaves(backbone.head)
    layers = [*trunk, *head]
    still = next((i for i, layer in enumerate(layers) if not is_still(layer)), len(layers))
    rest = Backbone(
        nn.Sequential(*trunk[still:]), nn.Sequential(*head[max(0, still - len(trunk)) :])
    )
    return nn.Sequential(*layers[:still]), rest


def leaves(module: nn.Module) -> list[nn.Module]:
    """The layers of a sequence of sequences, one after the other."""
    if not isinstance(module, nn.Sequential):
        return [module]
    return [leaf for layer in module for leaf in leaves(layer)]


def is_still(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Flatten | nn.Identity | Power | Whitening)
