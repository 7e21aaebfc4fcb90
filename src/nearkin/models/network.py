"""Network: a builder of convolutional networks for small pictures, one line a layer.

Dimensions: B batch, C channels, H x W pixels, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.models.stages import Levels, StagedHead, reads_each, slices_of
from nearkin.tensors import at_least_float32

Shape = tuple[int, ...]
LAYER_SIZES = {"conv": 5, "fc": 1, "stages": 1}
STANDARD = "conv 5 5 2 2 32, conv 5 5 2 2 64, fc 1024, fc 256"  # what small_network makes


class Network(nn.Module):
    """The builder of the n-tuple report: convolutions, fully connected layers, the embedding.

        net = Network(28, 28, 1, 2)
        net.add_conv(5, 5, 2, 2, 32).add_conv(5, 5, 2, 2, 64).add_fc(1024).add_fc(256)
        middle, positive, negative = net.connect(a), net.connect(p), net.connect(n)

    All parameters exist at any time, the last linear layer (the head) for the layers so far, and
    every `connect` uses the same ones. Hidden layers end in a ReLU.

    Args:
        height, width, channels: of the pictures, (B, channels, height, width) floats.
        dim: D, size of the embedding; 2 gives plots.
    """

    mean, std = (0.0,), (1.0,)  # of the pixels, in 0..1: black stays 0, which trains best
    made: dict  # by `nearkin.models.make`, from this name, these options, ...

    def __init__(self, height: int, width: int, channels: int, dim: int):
        super().__init__()
        sizes = {"height": height, "width": width, "channels": channels, "dim": dim}
        refuse_below_one("Network", sizes)
        self.input_shape = (channels, height, width)
        self.shape: Shape = self.input_shape  # of what the trunk gives
        self.dim = dim
        self.layers = ""  # so far, as the backbone `layers` takes them
        self.trunk: Any = nn.Sequential()  # after add_stages its Levels
        self.renew_head()

    def add_conv(
        self, kernel_height: int, kernel_width: int, pool_height: int, pool_width: int, filters: int
    ) -> Network:
        """A convolution that keeps height and width, a max-pool and a ReLU.

        An odd kernel k is padded with (k - 1) / 2 zeros on both sides, an even one with k / 2 - 1
        before and k / 2 after. Rows and columns that fill no whole pool are dropped.
        """
        kernel, pool = (kernel_height, kernel_width), (pool_height, pool_width)
        sizes = {
            "kernel_height": kernel_height,
            "kernel_width": kernel_width,
            "pool_height": pool_height,
            "pool_width": pool_width,
            "filters": filters,
        }
        refuse_below_one("add_conv", sizes)
        if len(self.shape) == 1:
            raise ValueError("add_conv: convolutions come before the fully connected layers")
        self.refuse_after_stages("add_conv")
        channels, height, width = self.shape
        if pool_height > height or pool_width > width:
            raise ValueError(
                f"add_conv: a pool of {pool_height} x {pool_width} leaves nothing of the "
                f"{height} x {width} that come in"
            )
        if not all(k % 2 for k in kernel):
            (top, bottom), (left, right) = (((k - 1) // 2, k // 2) for k in kernel)
            self.trunk.append(nn.ZeroPad2d((left, right, top, bottom)))
            convolution = nn.Conv2d(channels, filters, kernel)
        else:
            padding = (kernel_height // 2, kernel_width // 2)
            convolution = nn.Conv2d(channels, filters, kernel, padding=padding)
        # the pool first: it gives the same (ReLU is monotone), and leaves the ReLU less to do
        self.trunk.extend([for_relu(convolution), nn.MaxPool2d(pool), nn.ReLU()])
        self.shape = (filters, height // pool_height, width // pool_width)
        self.note("conv", *kernel, *pool, filters)
        self.renew_head()
        return self

    def add_fc(self, units: int) -> Network:
        """A fully connected layer and a ReLU."""
        refuse_below_one("add_fc", {"units": units})
        self.refuse_after_stages("add_fc")
        linear = for_relu(nn.Linear(prod(self.shape), units))
        self.trunk.extend([nn.Flatten(), linear, nn.ReLU()])
        self.shape = (units,)
        self.note("fc", units)
        self.renew_head()
        return self

    def add_stages(self, stages: int, levels: str = "each") -> Network:
        """A head of several stages as the last layer: an embedding of K unit slices.

        Args:
            stages: K.
            levels: "each" for one slice from each of the last K layers, convolutions averaged over
                their pixels; "last" for all slices from the last layer.
        """
        refuse_below_one("add_stages", {"stages": stages})
        self.note("stages", stages, levels)
        if not reads_each(stages, levels):
            self.head = nn.Sequential(
                nn.Flatten(), StagedHead([prod(self.shape)], self.dim, stages)
            )
            return self
        weights = [m for m in self.trunk if isinstance(m, nn.Conv2d | nn.Linear)]
        if stages > len(weights):
            raise ValueError(f"add_stages: wanted {stages} layers to read, got {len(weights)}")
        sizes = [len(layer.weight) for layer in weights[-stages:]]
        ends = [count for count, m in enumerate(self.trunk, 1) if isinstance(m, nn.ReLU)]
        self.trunk = Levels(self.trunk, ends[-stages:])
        self.head = StagedHead(sizes, self.dim, stages)
        return self

    @property
    def slices(self) -> tuple[int, ...]:
        """The sizes of the unit slices of the embedding; () where it is not made of any."""
        return slices_of(self.head)

    def connect(self, x: Tensor) -> Tensor:
        """Embeddings (B, D) of pictures (B, C, H, W)."""
        if not isinstance(x, Tensor):
            raise ValueError(
                f"Network: wanted a tensor, as torch.as_tensor, got {type(x).__name__}"
            )
        if not x.is_floating_point() or tuple(x.shape[1:]) != self.input_shape:
            wanted = "(B, {}, {}, {})".format(*self.input_shape)
            raise ValueError(
                f"Network: wanted floats {wanted}, as batch, channels, height, width, "
                f"got {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            )
        weights = next(self.parameters(), x).dtype
        if weights not in (torch.float32, torch.float64):
            raise ValueError(f"Network: wanted weights of float32 or float64, got {weights}")
        if at_least_float32(x).dtype != weights:
            raise ValueError(f"Network: wanted {weights}, as its weights are, got {x.dtype}")
        return in_full(self.head, self.trunk(x))

    forward = connect

    def refuse_after_stages(self, where: str) -> None:
        if self.slices:
            raise ValueError(f"{where}: layers come before the stages")

    def note(self, *words: str | int) -> None:
        """Write down a layer that was added."""
        layer = " ".join(map(str, words))
        self.layers = f"{self.layers}, {layer}" if self.layers else layer

    def renew_head(self) -> None:
        """A last linear layer, from what the trunk gives now to the embedding."""
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(prod(self.shape), self.dim))


def in_full(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x) in float32 under autocast too: in bf16, 2-D embeddings fall on a coarse lattice.

    A layer whose own weights are in half precision computes in that.
    """
    weights = next((p.dtype for p in layer.parameters()), torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(weights) if weights.itemsize == 2 else at_least_float32(x))


def for_relu(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with weights that keep the variance through a ReLU (He et al. 2015), no bias."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def refuse_below_one(where: str, sizes: Mapping[str, int]) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{where}: {name} must be a whole number of 1 or more, got {value!r}")


def small_network(
    input_shape: Shape,
    dim: int,
    *,
    filters: str = "32,64",
    kernel: int = 5,
    pool: int = 2,
    units: str = "1024,256",
    stages: int = 1,
    levels: str = "each",
) -> Network:
    """The network of the n-tuple report on pictures (C, H, W), one convolution for each filter.

    Args:
        filters: of the convolutions in turn, separated by commas.
        kernel: side of the convolutions.
        pool: side of the max-pool after each convolution.
        units: of the fully connected layers in turn, separated by commas.
        stages: K above 1 makes the embedding of K unit slices (`StagedHead`).
        levels: "each" for a slice from each of the last K layers, "last" for all from the last.
    """
    if len(input_shape) != 3:
        raise ValueError(f"backbone 'network' wanted pictures (C, H, W), got inputs {input_shape}")
    channels, height, width = input_shape
    net = Network(height, width, channels, dim)
    for count in numbers("filters", filters):
        net.add_conv(kernel, kernel, pool, pool, count)
    for count in numbers("units", units):
        net.add_fc(count)
    return net if stages == 1 else net.add_stages(stages, levels)


def layered(input_shape: Shape, dim: int, *, layers: str = STANDARD) -> Network:
    """A `Network` on pictures (C, H, W) from its layers in words.

    Args:
        layers: in turn, separated by commas: "conv" and the five numbers of `Network.add_conv`,
            "fc" and the number of `Network.add_fc`, or "stages", their number and "each" or "last"
            for `Network.add_stages`, as in "conv 5 5 2 2 32, fc 256".
    """
    if len(input_shape) != 3:
        raise ValueError(f"backbone 'layers' wanted pictures (C, H, W), got inputs {input_shape}")
    channels, height, width = input_shape
    net = Network(height, width, channels, dim)
    for layer in filter(None, (part.strip() for part in layers.split(","))):
        kind, *words = layer.split()
        sizes = [int(word) for word in words if word.isdecimal()]
        levels = words[1:] if kind == "stages" else []
        if kind not in LAYER_SIZES or [len(sizes), len(words)] != [
            LAYER_SIZES[kind],
            len(sizes) + len(levels),
        ]:
            raise ValueError(f"layers: wanted such as conv 5 5 2 2 32, fc 256, got {layer!r}")
        getattr(net, f"add_{kind}")(*sizes, *levels)
    return net


def numbers(name: str, text: str) -> list[int]:
    """Whole numbers, separated by commas; none in an empty text."""
    try:
        return [int(part) for part in text.split(",") if text]
    except ValueError:
        raise ValueError(f"{name}: wanted whole numbers such as 32,64, got {text!r}") from None
