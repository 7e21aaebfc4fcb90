"""The way back of a step: gradients of one process, or of several that cut the batch in slices.

Dimensions: B batch, D embedding, F trunk features, W processes.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from nearkin.data.items import Items
from nearkin.losses.protocol import call, wants_of
from nearkin.losses.wrap.gradient_cache import Pulled, in_chunks, random_state
from nearkin.runs.manners import seeded
from nearkin.runs.ranks import ALONE, Ranks
from nearkin.runs.whole_batch import WholeBatch

if TYPE_CHECKING:
    from nearkin.runs.run import Run

REHEARSED = 4
"""Images a rank, and one more, by which a network is tried out before the first step."""
TOLERANCE = {"float32": 1e-3, "bf16": 5e-2}
"""The largest relative difference of embeddings that is taken for one of rounding."""


def own_rows(run: Run, indices: Tensor, generator: Generator | None) -> Tensor:
    """This rank's slice of a batch as the backbone takes it: the whole batch's, where it is alone.

    What is random is drawn for the whole batch. A Dataset that draws from torch's numbers is read
    whole by every rank, since an item's draws come after those of the items before it.
    """
    part = torch.arange(len(indices))[run.ranks.own(len(indices))]
    if run.seen is not None:
        return run.seen.index_select(0, indices[part].to(run.seen.device))
    if run.tail is not None:
        return run.tail.batch(indices, generator, part)
    if run.ranks.count == 1:
        return run.prepare(run.inputs, indices, generator)
    if not isinstance(run.inputs, Items):
        return run.prepare(run.inputs, indices, generator, part)
    before = torch.get_rng_state()
    rows = run.prepare(run.inputs, indices, generator, part)
    if any(run.ranks.told(not torch.equal(torch.get_rng_state(), before))):
        torch.set_rng_state(before)
        rows = run.prepare(run.inputs, indices, generator)[part.to(run.device)]
    return rows


def forward_backward(run: Run, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D) and loss of a batch, both detached; gradients are left in the parameters.

    inputs: this rank's slice. labels: (B,), of the whole batch.
    """
    backward = run.fabric.backward
    if run.recipe.chunk:
        pull = partial(pulled, run, labels)
        found = in_chunks(run.backbone, inputs, run.recipe.chunk, pull, backward)
    else:
        rows = embedded(run, inputs, len(labels), run.ranks)
        if run.ranks.group is None:
            value = loss_of(run, rows, labels)
            if not value.requires_grad:
                raise ValueError("wanted a loss that depends on weights, got one without gradient")
            backward(value)
            return rows[-1].detach(), value.detach()
        found = pulled(run, labels, *rows)
        pairs = zip(rows, found.gradients, strict=True)
        roots = [(x, g) for x, g in pairs if x.requires_grad and g is not None]
        torch.autograd.backward([x for x, _ in roots], [g for _, g in roots])
    if run.ranks.group is not None:
        run.ranks.sum_gradients(parameters(run))
    return found.embeddings, found.value


def embedded(run: Run, inputs: Tensor, total: int, ranks: Ranks) -> list[Tensor]:
    """The embeddings of this rank's rows, after the trunk's features where the loss wants them."""
    with WholeBatch(ranks, total) if ranks.count > 1 else nullcontext():
        if "features" in wants_of(run.loss):
            return list(run.features_and_embeddings(inputs))
        return [run.forward(inputs)]


def loss_of(run: Run, rows: list[Tensor], labels: Tensor) -> Tensor:
    """The loss of a whole batch: of its embeddings, and of the features where it wants them."""
    offered: dict[str, Any] = {}
    if len(rows) > 1:
        offered = {"features": rows[0], "head": run.backbone.module.head}
    mined = run.mined(rows[-1].detach(), labels)
    return call(run.loss, rows[-1], labels, mined, **offered)


def pulled(run: Run, labels: Tensor, *rows: Tensor) -> Pulled:
    """Gather the rows of all ranks, go back through the loss of the whole batch, and find the
    gradients of this rank's rows.

    What the loss leaves in parameters, its own or the head's, is the same in every rank: rank 0
    keeps it, and the sum over ranks then counts it once.
    """
    ranks, total = run.ranks, len(labels)
    whole = [ranks.gather(each, ranks.sizes(total)).requires_grad_() for each in rows]
    value = loss_of(run, whole, labels)
    run.fabric.backward(value)
    if not ranks.first:
        for parameter in parameters(run):
            parameter.grad = None
    gradients = [None if x.grad is None else x.grad[ranks.own(total)] for x in whole]
    return Pulled(whole[-1].detach(), value.detach(), gradients)


def parameters(run: Run) -> list[torch.nn.Parameter]:
    """All that may learn: of the network and of the loss."""
    return [*run.backbone.parameters(), *run.loss.parameters()]


@torch.no_grad()
def refuse_what_depends(run: Run) -> None:
    """Refuse a network that makes other embeddings of a slice than of the whole batch.

    A few images are embedded both ways, as they are: what looks across a batch in a way of its own,
    or draws numbers that `WholeBatch` does not know of, shows in them.
    """
    ranks, net = run.ranks, run.backbone.module
    indices = run.batches[0][: REHEARSED * ranks.count + 1]
    total, own, sizes = len(indices), ranks.own(len(indices)), ranks.sizes(len(indices))
    buffers = [(b, b.clone()) for b in net.buffers()]

    def embed(rows: Tensor, among: Ranks) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The embeddings, and where the random numbers then stand."""
        with seeded(run.recipe.seed):
            if run.recipe.chunk:
                y = torch.cat([run.backbone(part) for part in rows.tensor_split(len(rows) // 2)])
            else:
                y = embedded(run, rows, total, among)[-1]
            after = random_state(run.device)
        for buffer, before in buffers:
            buffer.copy_(before)
        return y.float(), after

    with seeded(run.recipe.seed):
        if run.tail is not None:
            x = run.tail.batch(indices)
        else:
            x = run.prepare(run.inputs, indices) if run.seen is None else run.seen[indices]
    x = ranks.gather(x[own], sizes)  # the same in all ranks, whatever a Dataset draws
    (whole, after), (slices, then) = embed(x, ALONE), embed(x[own], ranks)
    apart = (ranks.gather(slices, sizes) - whole).norm()
    difference = (apart / whole.norm().clamp_min(1e-12)).item()
    same = all(map(torch.equal, after, then)) and difference <= TOLERANCE[run.recipe.precision]
    if not all(ranks.told(same)):
        name = run.recipe.backbone if hasattr(net, "made") else type(net).__name__
        what = "something that looks across a batch, or draws noise, in a way of its own"
        if run.recipe.chunk:
            what = "live batch normalisation, or noise, and gets a batch in pieces (chunk)"
        raise ValueError(
            f"backbone {name} has {what}, so that {ranks.count} processes would come to other "
            f"numbers than one (embeddings differ by {difference:.2g}): train it in one"
        )
