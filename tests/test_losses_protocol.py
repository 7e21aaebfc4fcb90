"""The contract of a loss is written down, checked, and all that a run asks of one."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning import losses as pml
from torch import nn

from batches import batch
from nearkin import losses
from nearkin.data import Split, Splits
from nearkin.losses import LOSSES, Contrastive, Loss, make
from nearkin.losses.protocol import (
    active_share,
    call,
    can_monitor,
    metric_of,
    rates_of,
    start_epoch,
    takes_references,
    wants_of,
)
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run


class Own(nn.Module):
    """The least that a loss of one's own must have."""

    metric = "euclidean"

    def forward(self, embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None):
        return embeddings.square().mean()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_ours_has_the_members_that_a_loss_must_have(name):
    assert isinstance(make(name, classes=20, dim=16, features=8), Loss)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_ours_takes_half_weights_or_says_what_it_takes(name):
    torch.manual_seed(0)
    x, y = batch([4, 4, 4], dim=16)
    loss, x = make(name, classes=3, dim=16, features=8).half(), x.half()
    if wants_of(loss):
        return
    if name == "graph-refinement":
        with pytest.raises(ValueError, match=r"float32 or float64: take loss\.float\(\)"):
            loss(x, y)
        return
    found = loss(x.requires_grad_(), y)
    found.backward()
    assert found.dtype == torch.float32
    assert found.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_loss_of_ones_own_needs_the_call_and_a_metric_and_no_more():
    loss = Own()
    assert isinstance(loss, Loss)
    assert metric_of(loss) == "euclidean"
    assert (rates_of(loss), wants_of(loss)) == ({}, ())
    assert not takes_references(loss)
    assert not can_monitor(loss)
    x, y = batch([2, 2])
    assert active_share(loss, x, y) is None
    start_epoch(loss, x, y)


def test_a_loss_without_a_metric_is_not_judged_by_a_guess():
    class Silent(nn.Module):
        pass

    assert not isinstance(Silent(), Loss)
    loss: Any = Silent()
    for metric in (None, "manhattan"):
        loss.metric = metric
        with pytest.raises(ValueError, match="must have a metric, cosine, inner, euclidean"):
            metric_of(loss)


@pytest.mark.parametrize(
    ("distance", "metric"),
    [
        (distances.CosineSimilarity(), "cosine"),
        (distances.LpDistance(), "cosine"),
        (distances.LpDistance(normalize_embeddings=False), "euclidean"),
        (distances.DotProductSimilarity(normalize_embeddings=False), "inner"),
        (distances.SNRDistance(), None),
    ],
)
def test_a_bare_loss_of_pml_is_judged_by_its_distance(distance, metric):
    loss = pml.ContrastiveLoss(distance=distance)
    if metric:
        assert metric_of(loss) == metric
    else:
        with pytest.raises(ValueError, match="must have a metric"):
            metric_of(loss)


def test_a_loss_gets_of_what_is_offered_what_it_wants():
    class Greedy(Own):
        wants = ("features",)

        def forward(self, *inputs, features: Any = None):
            return features.sum()

    x, y = batch([2, 2])
    offered: dict[str, Any] = {"features": x + 1, "head": nn.Identity()}
    assert call(Greedy(), x, y, **offered) == (x + 1).sum()
    assert call(Own(), x, y, **offered) == x.square().mean()


def features(classes=4):
    torch.manual_seed(0)
    y = torch.arange(classes).repeat_interleave(4)
    parts = [Split(torch.randn(len(y), 6), y, tuple(f"{p}{i}" for i in range(4))) for p in "ab"]
    return Splits("features", parts[0], parts[1], parts[1])


def test_a_run_asks_a_loss_by_its_contract(monkeypatch):
    """A loss of one's own, in the registry as an object, trains and is judged by its metric."""
    monkeypatch.setitem(losses.LOSSES, "own", Own)
    recipe = Recipe(loss="own", backbone="linear", dim=3, batch=8, per_class=2, steps=2, epochs=1)
    run = Run(recipe, features(), device="cpu")
    (*_, last) = train(run)
    assert "active" not in last.watched
    from nearkin.runs.evaluate import nearness

    assert nearness(run) == "euclidean"


def test_looking_whether_there_is_anything_to_learn_changes_no_state(monkeypatch):
    class Counting(Contrastive):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, *inputs):
            if self.training:
                self.calls += 1
            return super().forward(*inputs)

    monkeypatch.setitem(losses.LOSSES, "counting", Counting)
    recipe = Recipe(loss="counting", backbone="linear", dim=3, batch=8, sampler="pairs", steps=2)
    run = Run(recipe, features(), device="cpu")
    assert run.loss.calls == 0
    (*_, _) = train(run)
    assert run.loss.calls == 2


def test_importing_the_losses_imports_nothing_heavy():
    code = "import sys, nearkin.losses; print('torch' in sys.modules, len(nearkin.losses.LOSSES))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", str(len(LOSSES))]


def test_public_names_are_flat():
    found = [name for name in dir(losses) if name[:1].isupper() and not name.isupper()]
    for name in ("ArcFace", "Contrastive", "Memory", "Matryoshka", "ProxyGML", "Loss"):
        assert name in found
    for name in found:
        assert getattr(losses, name) is not None
    with pytest.raises(AttributeError, match=r"nearkin\.losses has no 'ArcFaec'"):
        _ = losses.ArcFaec  # type: ignore[attr-defined]
