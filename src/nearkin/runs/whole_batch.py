"""A network that is given a slice of a batch, and computes as if it were given the whole of it.

Two things in a network look beyond an image: batch normalisation, at the batch's statistics, and
dropout, whose numbers are drawn for the batch in one go. Within `WholeBatch` the first has the
statistics of the rows of all ranks, and the second draws what one process would have drawn.

Dimensions: B batch, C channels, W processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nearkin.runs.ranks import Ranks
from nearkin.tensors import at_least_float32

NOISE = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.rand_like,
    torch.randn_like,
    torch.Tensor.bernoulli_,
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
}
"""Functions of a tensor of rows that draw numbers for each of them."""


class WholeBatch(TorchFunctionMode):
    """A context in which what a network makes of its rows does not depend on how many ranks there
    are: batch normalisation is synchronised, and noise is drawn for the whole batch.

    What looks beyond an image in another way, `refuse_what_depends` finds out.

    Args:
        ranks: the processes of the run.
        total: B.
    """

    def __init__(self, ranks: Ranks, total: int):
        super().__init__()
        self.ranks, self.total, self.rows = ranks, total, ranks.sizes(total)[ranks.rank]

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return synchronised(self.ranks, *args, **kwargs)
        if func in NOISE and args[0].ndim and len(args[0]) % self.rows == 0:
            return self.noisy(func, *args, **kwargs)
        return func(*args, **kwargs)

    def noisy(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """func(x) as it is of these rows within the whole batch."""
        if kwargs.get("training") is False:
            return func(x, *args, **kwargs)
        each, own = len(x) // self.rows, self.ranks.own(self.total)
        mine = slice(own.start * each, own.stop * each)
        order = sorted(range(x.ndim), key=lambda d: -x.stride(d))  # as x lies in memory
        shape = (self.total * each, *x.shape[1:])
        whole = torch.empty_permuted(shape, order, dtype=x.dtype, device=x.device).zero_()
        in_place = func.__name__.endswith("_")
        if not in_place:
            whole[mine] = x
            kwargs |= {"inplace": False} if "inplace" in kwargs else {}
        found = func(whole, *args, **kwargs)[mine]
        return x.copy_(found) if in_place else found


def synchronised(
    ranks: Ranks,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm, whose statistics are those of all ranks' rows.

    y = weight (x - mean) / sqrt(var + eps) + bias
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = at_least_float32(x)
    with torch.autocast(x.device.type, enabled=False):
        if weight is None:
            weight = wide.new_ones(x.shape[1])
        if bias is None:
            bias = torch.zeros_like(weight)
        y, mean, var, count = BatchNorm.apply(wide, weight, bias, eps, ranks)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var), momentum)
    return y.to(x.dtype)


class BatchNorm(torch.autograd.Function):
    """(x (N, C, ...), weight, bias) -> the normalised x, and mean (C,), var (C,) and count of all.

    dx = weight / s (dy - mean of dy - x^ mean of (dy x^)),    s = sqrt(var + eps)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks):
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        count = mean.new_tensor([x.numel() // x.shape[1]])
        told = ranks.gather(torch.cat([mean, var, count])[None], [1] * ranks.count)
        means, variances, counts = told.split([len(mean), len(mean), 1], 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean).square())).sum(0) / total
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps, ctx.ranks = eps, ranks
        ctx.mark_non_differentiable(mean, var, total)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, var, total = ctx.saved_tensors
        dy, inverse = outer[0].contiguous(memory_format=layout(x)), (var + ctx.eps).rsqrt()
        _, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, None, None, mean, inverse, True, ctx.eps, [False, True, True]
        )
        all_weight, all_bias = ctx.ranks.summed(torch.stack([dweight, dbias])) / total
        scale = weight * inverse
        slope = -scale * all_weight * inverse
        shape = (1, -1, *[1] * (x.ndim - 2))
        constant, slope, scale = (
            v.view(shape) for v in (-scale * all_bias - slope * mean, slope, scale)
        )
        return torch.addcmul(constant, x, slope).addcmul_(dy, scale), dweight, dbias, None, None


def layout(x: Tensor) -> torch.memory_format:
    """How pictures lie in memory: channels last, or one plane after the other."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
