"""The form that all backbones have, and those for stored features: identity, linear and mlp.

Dimensions: B batch, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod

from torch import Tensor, nn

from nearkin.models.network import Shape, for_relu, in_full, refuse_below_one
from nearkin.models.stages import StagedHead, projection, slices_of

SMALLEST = 1e-12  # below it, the slope of a power is taken for 0


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


class Power(nn.Module):
    """x -> sign(x) |x|^p, elementwise: without parameters, and what no linear layer can hold."""

    def __init__(self, power: float):
        super().__init__()
        if not 0 < power < inf:
            raise ValueError(f"power must be above 0, and finite, got {power}")
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        return x.sign() * x.abs().clamp_min(SMALLEST).pow(self.power)

    def extra_repr(self) -> str:
        return str(self.power)


def powers(power: float) -> list[nn.Module]:
    """The layer that takes this power; none for 1."""
    return [] if power == 1 else [Power(power)]


def identity(input_shape: Shape, dim: int, *, power: float = 1.0) -> Backbone:
    """The features as they are: nothing to train, and their size is that of the embedding.

    Args:
        power: p of x -> sign(x) |x|^p; 0.5 for features that are averages of ReLU outputs.
    """
    return Backbone(flat(power), nn.Identity())


def linear(input_shape: Shape, dim: int, *, power: float = 1.0, stages: int = 1) -> Backbone:
    """The head alone: one linear layer on the features (or pixels) as they are.

    It starts as an orthogonal projection: what the features know is least disturbed.

    Args:
        power: p of x -> sign(x) |x|^p before it; 0.5 for averages of ReLU outputs.
        stages: K above 1 makes the embedding of K unit slices (`StagedHead`).
    """
    return Backbone(flat(power), head_of(prod(input_shape), dim, stages))


def flat(power: float) -> nn.Module:
    """Inputs as vectors, in this power."""
    return nn.Sequential(nn.Flatten(), Power(power)) if power != 1 else nn.Flatten()


def head_of(features: int, dim: int, stages: int = 1) -> nn.Module:
    """A linear layer, or a head of several stages that read the same features."""
    refuse_below_one("head", {"stages": stages})
    return projection(features, dim) if stages == 1 else StagedHead([features], dim, stages)


def mlp(
    input_shape: Shape, dim: int, *, hidden: int = 0, power: float = 1.0, stages: int = 1
) -> Backbone:
    """Two layers, of which the first is the trunk.

    Args:
        hidden: units between them; 0: as many as there are features, and then the first layer
            starts as the identity, so that nothing of what pretrained features know is lost
            (but their negative parts: a ReLU follows).
        power: p of x -> sign(x) |x|^p before both; 0.5 for averages of ReLU outputs.
        stages: K above 1 makes the embedding of K unit slices (`StagedHead`).
    """
    if hidden:
        refuse_below_one("mlp", {"hidden": hidden})
    features = prod(input_shape)
    layer = for_relu(nn.Linear(features, hidden or features))
    if not hidden:
        nn.init.eye_(layer.weight)
    trunk = nn.Sequential(flat(power), layer, nn.ReLU())
    return Backbone(trunk, head_of(hidden or features, dim, stages))
