"""One run: it streams steps, can be saved between any two of them, and goes on bit for bit.

Nothing random outlives a step: each step seeds dropout and augmentation from (seed, step) alone,
and the batches of an epoch are a function of (seed, epoch). So a checkpoint is tensors and plain
numbers, and holds no generator's state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nearkin.losses.protocol import active_share
from nearkin.runs import build
from nearkin.runs.backward import forward_backward, own_rows, refuse_what_depends
from nearkin.runs.manners import seeded
from nearkin.runs.run import Run
from nearkin.runs.surveys import begin_epoch
from nearkin.tensors import effective_rank

WATCH_EVERY = 20  # steps from one look at loss, gradient and embeddings to the next


@dataclass(frozen=True)
class Step:
    """One step of training; what is watched (loss, gradient norm, ...) is there every 20 steps."""

    step: int
    epoch: int
    images: int
    watched: dict[str, float]


def train(run: Run) -> Iterator[Step]:
    """Take the run from where it stands to its end, one step at a time.

    Between two steps the run may be saved, evaluated or left.
    """
    while run.step < run.total:
        with seeded(noise_seed(run.recipe.seed, run.step)):
            done = one_step(run)
        yield done


def one_step(run: Run) -> Step:
    """Take the next batch, and change the weights by it."""
    if run.step % len(run.batches) == 0:
        begin_epoch(run)
    recipe, indices = run.recipe, run.next_batch()
    generator = torch.Generator().manual_seed(noise_seed(recipe.seed, run.step))
    set_learning(run)
    if run.ranks.count > 1 and run.rehearsed is not run.trunk.training:
        refuse_what_depends(run)
        run.rehearsed = run.trunk.training
    inputs = own_rows(run, indices, generator)
    labels = run.labels[indices.to(run.device)]
    embeddings, value = forward_backward(run, inputs, labels)
    run.loss_sum += value
    run.step += 1
    for process, size in zip(run.processes, run.ranks.sizes(len(indices)), strict=True):
        process["images"] += size
    watched = {}
    if run.step % WATCH_EVERY == 0 or run.step == run.total:
        watched = watch(run, embeddings, labels, value)
    if run.doctor:
        run.doctor.step(embeddings, labels, value, run.stepped, run.loss, run.optimizer)
    if recipe.clip:
        torch.nn.utils.clip_grad_norm_(run.backbone.parameters(), recipe.clip)
    run.optimizer.step()
    run.hold.after_step(run.backbone.module)
    run.optimizer.zero_grad()
    return Step(run.step, run.epoch, run.step * recipe.batch, watched)


def noise_seed(seed: int, step: int) -> int:
    """A seed for what is random in one step, apart from those of weights and batches."""
    return (seed * 1_000_003 + step) * 2_654_435_761 % 2**63


def set_learning(run: Run) -> None:
    """Learning rates of the next step, and whether the trunk learns in it."""
    recipe = run.recipe
    factor = build.rate_factor(recipe, run.step, run.total)
    for group in run.optimizer.param_groups:
        group["lr"] = group["rate"] * factor
    resting = recipe.freeze or run.step * recipe.epochs < recipe.head_first * run.total
    run.backbone.train()
    run.trunk.train(not resting)  # batch norm rests too
    for parameter in run.learning:
        parameter.requires_grad_(not resting)


def watch(run: Run, embeddings: Tensor, labels: Tensor, value: Tensor) -> dict[str, float]:
    """What tells early that a network collapses or diverges."""
    gradients = [p.grad for p in run.backbone.parameters() if p.grad is not None]
    watched = {
        "loss": value.item(),
        "gradient_norm": nn.utils.get_total_norm(gradients).item(),
        "effective_rank": effective_rank(embeddings.float()).item(),
        "learning_rate": run.optimizer.param_groups[0]["lr"],
    }
    with torch.no_grad():
        active = active_share(run.loss, embeddings, labels)
    return watched if active is None else watched | {"active": active}
