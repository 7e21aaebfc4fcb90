"""The form that all backbones have, and those for stored features: identity, linear and mlp.

Dimensions: B batch, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from nearkin.models.network import Shape, for_relu, in_full, refuse_below_one
from nearkin.models.stages import StagedHead, projection, slices_of


class Backbone(nn.Module):
    """embedding = head(trunk(x)): (B, ...) -> (B, D).

    mean and std are what is to be taken out of the pixels, in 0..1, before they come in.
    """

    made: dict  # by `nearkin.models.make`, from this name, these options, ...

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ):
        super().__init__()
        self.trunk, self.head = trunk, head
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(self.head, self.trunk(x))

    @property
    def slices(self) -> tuple[int, ...]:
        """The sizes of the unit slices of the embedding; () where it is not made of any."""
        return slices_of(self.head)


def identity(input_shape: Shape, dim: int) -> Backbone:
    """The features as they are: nothing to train, and their size is that of the embedding."""
    return Backbone(nn.Flatten(), nn.Identity())


def linear(input_shape: Shape, dim: int, *, stages: int = 1) -> Backbone:
    """The head alone: one linear layer on the features (or pixels) as they are.

    It starts as an orthogonal projection: what the features know is least disturbed.

    Args:
        stages: K above 1 makes the embedding of K unit slices (`StagedHead`).
    """
    return Backbone(nn.Flatten(), head_of(prod(input_shape), dim, stages))


def head_of(features: int, dim: int, stages: int = 1) -> nn.Module:
    """A linear layer, or a head of several stages that read the same features."""
    refuse_below_one("head", {"stages": stages})
    return projection(features, dim) if stages == 1 else StagedHead([features], dim, stages)


def mlp(input_shape: Shape, dim: int, *, hidden: int = 0, stages: int = 1) -> Backbone:
    """Two layers, of which the first is the trunk.

    Args:
        hidden: units between them; 0: as many as there are features, and then the first layer
            starts as the identity, so that nothing of what pretrained features know is lost
            (but their negative parts: a ReLU follows).
        stages: K above 1 makes the embedding of K unit slices (`StagedHead`).
    """
    if hidden:
        refuse_below_one("mlp", {"hidden": hidden})
    features = prod(input_shape)
    layer = for_relu(nn.Linear(features, hidden or features))
    if not hidden:
        nn.init.eye_(layer.weight)
    return Backbone(
        nn.Sequential(nn.Flatten(), layer, nn.ReLU()), head_of(hidden or features, dim, stages)
    )
