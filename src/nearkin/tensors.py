"""Arithmetic that losses, graphs and measures share: pure functions on tensors.

Dimensions: B batch, M references, D embedding.
"""

import re
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def as_tensor(x: Any, wanted: str, device: torch.device | None = None) -> Tensor:
    """A tensor of x: of a tensor, a NumPy array or nested lists.

    Raises:
        ValueError: for what cannot be a tensor, or holds no plain numbers; `wanted` says what was
            wanted.
    """
    refuse_hollow(x, wanted)
    try:
        if isinstance(x, np.ndarray):  # torch takes no foreign bytes, 80 bits, and no steps back
            wide = x.dtype.kind == "f" and x.itemsize > 8
            x = x.astype(np.float64 if wide else x.dtype.newbyteorder("="), copy=False)
            x = x.copy() if any(step < 0 for step in x.strides) else x
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            found = torch.as_tensor(x)  # a file mapped to memory is not copied, only read
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{wanted}, got {type(x).__name__} ({why})") from None
    refuse_hollow(found, wanted)  # of complex numbers in a list
    return found.to(device)


def refuse_hollow(x: Any, wanted: str) -> None:
    """Refuse what holds no plain numbers: a masked array, complex numbers, of which the imaginary
    part would be dropped, and a tensor without values, quantised, nested or sparse."""
    if np.ma.is_masked(x):
        raise ValueError(f"{wanted}, got a masked array: leave out what is masked, or fill it")
    if "complex" in str(getattr(x, "dtype", "")):
        came = f"{tuple(x.shape)} of {x.dtype}"
        raise ValueError(f"{wanted}, got {came}: put real and imaginary parts side by side")
    if not isinstance(x, Tensor):
        return
    if x.is_nested:
        raise ValueError(f"{wanted}, got a nested tensor: take x.to_padded_tensor(0)")
    if x.is_meta:
        raise ValueError(f"{wanted}, got a tensor without values")
    if x.is_quantized:
        raise ValueError(f"{wanted}, got a quantised tensor: take x.dequantize()")
    if x.layout != torch.strided:
        raise ValueError(f"{wanted}, got a sparse tensor: take x.to_dense()")


def is_integers(x: Any) -> bool:
    """Whether x is a tensor of whole numbers that are there, one beside the other."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
        return False
    return x.layout == torch.strided and not (x.is_meta or x.is_quantized or x.is_nested)


def unit(x: Tensor) -> Tensor:
    """Rows of x (..., D) divided by their Euclidean norm, in float32 at least; zero stays zero."""
    return F.normalize(at_least_float32(x), dim=-1, eps=1e-12)


def pair_masks(labels: Tensor, references: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which pairs are kin (of one class), and which are others (of two).

    Args:
        labels: (B,) integers, of the anchors.
        references: (M,) integers; by default the anchors, and then no row is its own kin.

    Returns:
        kin and others, both (B, M) bool.

    >>> kin, others = pair_masks(torch.tensor([7, 7, 9]))
    >>> kin.int().tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    same = labels[:, None] == (labels if references is None else references)[None, :]
    if references is not None:
        return same, ~same
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return same & ~itself, ~same


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Inner products (B, M) of the rows of x (B, D) and y (M, D), in float32 at least.

    Under bf16 autocast too: a distance by |x|^2 + |y|^2 - 2 x.y would be lost to cancellation.
    """
    with torch.autocast(x.device.type, enabled=False):
        return at_least_float32(x) @ at_least_float32(y).T


def at_least_float32(x: Tensor) -> Tensor:
    """x, in float32 where it was in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Squared Euclidean distances (B, M) between the rows of x (B, D) and of y (M, D).

    y is x by default. By |x|^2 + |y|^2 - 2 x.y, clamped at 0, and exactly 0 from a row to itself;
    around the mean of x, which changes no distance but keeps the cancellation small.
    """
    x = at_least_float32(x)
    origin = x.detach().mean(0)
    x = x - origin
    other = x if y is None else at_least_float32(y) - origin
    square = inner(x, other).mul_(-2)  # in place: at large batches (B, M) numbers are the memory
    square.add_((x * x).sum(1)[:, None]).add_((other * other).sum(1)[None, :])
    if y is None:
        square.fill_diagonal_(0)
    return square.clamp_min(0)


def distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Euclidean distances (B, M); the gradient at distance 0 is 0, not NaN."""
    return Distances.apply(x, y)


class Distances(torch.autograd.Function):
    """d_ij = |x_i - y_j|, which keeps d alone for the way back.

    With s_ij = (d loss / d d_ij) / d_ij:   d loss / d x_i = sum_j s_ij (x_i - y_j).
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor | None) -> Tensor:
        distance = squared_distances(x, y).sqrt_()
        ctx.save_for_backward(x, y, distance)
        return distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *outer: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y, distance = ctx.saved_tensors
        return pulls((outer[0] / distance).masked_fill_(distance == 0, 0), x, y)


class SquaredDistances(torch.autograd.Function):
    """d^2_ij = |x_i - y_j|^2, which keeps the rows alone for the way back.

    With s_ij = d loss / d d^2_ij:   d loss / d x_i = 2 sum_j s_ij (x_i - y_j).
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, y)
        return squared_distances(x, y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *outer: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return pulls(2 * outer[0], *ctx.saved_tensors)


def pulls(weights: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """`pulled` of x by y, and of y by x; y of None is x, which is then pulled from both sides."""
    if y is None:
        return pulled(weights + weights.T, x, x).to(x.dtype), None
    return pulled(weights, x, y).to(x.dtype), pulled(weights.T, y, x).to(y.dtype)


def pulled(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """sum_j w_ij (x_i - y_j) for weights (B, M), x (B, D) and y (M, D): (B, D)."""
    origin = y.mean(0)  # as in squared_distances
    return weights.sum(1, keepdim=True) * (x - origin) - inner(weights, (y - origin).T)


def place_in_class(labels: Tensor) -> Tensor:
    """How many items of its own class come before each item, (B,) -> (B,).

    >>> place_in_class(torch.tensor([7, 9, 7, 7]))
    tensor([0, 0, 1, 2])
    """
    order = labels.argsort(stable=True)  # class by class, in the order given within each
    ordered = labels[order]
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).index_put_((order,), place)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is true; 0, with zero gradient, where it never is.

    >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)


def largest(values: Tensor, k: int) -> Tensor:
    """Where the k largest values of each row of (B, M) are: indices (B, k), in no order.

    >>> largest(torch.tensor([[3.0, 1.0, 2.0]]), 2).sort().values
    tensor([[0, 2]])
    """
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        # numpy's partition has vector instructions: 2 to 4 times the speed of torch.topk
        order = np.argpartition(values.detach().numpy(), values.shape[1] - k, axis=1)
        return torch.from_numpy(order[:, values.shape[1] - k :])
    return values.topk(k, dim=1, sorted=False).indices


def slice_sizes(dim: int, count: int) -> tuple[int, ...]:
    """The sizes of `count` slices of `dim` numbers: equal ones, and what is left over in the last.

    >>> slice_sizes(64, 3)
    (21, 21, 22)
    """
    if not 1 <= count <= dim:
        raise ValueError(f"wanted 1 to {dim} slices of {dim} numbers, got {count}")
    return (*[dim // count] * (count - 1), dim - dim // count * (count - 1))


def effective_rank(x: Tensor) -> Tensor:
    """exp of the entropy of the shares of the singular values of centred x (B, D): 1..min(B, D).

    Near 1 the embeddings lie on a line, 0 when they are all one point: the network has collapsed.
    NaN where they are not finite: it has diverged.
    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007, definition 1.
    """
    if not x.isfinite().all():
        return x.new_tensor(torch.nan, dtype=torch.double)
    values = torch.linalg.svdvals((x - x.mean(0)).double())
    total = values.sum()
    share = values / total.clamp_min(torch.finfo(torch.double).tiny)
    return torch.where(total > 0, torch.special.entr(share).sum().exp(), 0)


def usable(device: str) -> str:
    """cpu, cuda or cuda:N: what auto means here, or what was asked for, if there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    name = str(device)
    if not re.fullmatch("cpu|cuda(:(0|[1-9][0-9]*))?", name):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: wanted a GPU, and torch finds none")
    if name != "cpu" and int(name[5:] or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name}: torch finds {torch.cuda.device_count()} GPUs")
    return name
