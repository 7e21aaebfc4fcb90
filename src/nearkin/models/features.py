"""The form that all backbones have, and those for stored features: identity, linear and mlp.

Dimensions: B batch, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from nearkin.models.network import Shape, for_relu, in_full, refuse_below_one


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


def identity(input_shape: Shape, dim: int) -> Backbone:
    """The features as they are: nothing to train, and their size is that of the embedding."""
    return Backbone(nn.Flatten(), nn.Identity())


def linear(input_shape: Shape, dim: int) -> Backbone:
    """The head alone: one linear layer on the features (or pixels) as they are.

    It starts as an orthogonal projection: what the features know is least disturbed.
    """
    return Backbone(nn.Flatten(), projection(prod(input_shape), dim))


def projection(features: int, dim: int) -> nn.Linear:
    """A linear layer whose rows (or columns) start orthonormal, and its bias at 0."""
    layer = nn.Linear(features, dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(input_shape: Shape, dim: int, *, hidden: int = 0) -> Backbone:
    """Two layers, of which the first is the trunk.

    Args:
        hidden: units between them; 0: as many as there are features, and then the first layer
            starts as the identity, so that nothing of what pretrained features know is lost
            (but their negative parts: a ReLU follows).
    """
    if hidden:
        refuse_below_one("mlp", {"hidden": hidden})
    features = prod(input_shape)
    layer = for_relu(nn.Linear(features, hidden or features))
    if not hidden:
        nn.init.eye_(layer.weight)
    return Backbone(
        nn.Sequential(nn.Flatten(), layer, nn.ReLU()), projection(hidden or features, dim)
    )
