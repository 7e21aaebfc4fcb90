"""Matryoshka is the weighted sum of one loss on embeddings cut short, whatever the loss."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nearkin as nk
from batches import batch, batches
from nearkin import losses
from nearkin.losses import Contrastive, Matryoshka, Memory, ProxyGML, Triplet, make
from nearkin.runs.recipe import Recipe


@settings(max_examples=30, deadline=None)
@given(case=batches(), weights=st.lists(st.floats(0, 3), min_size=4, max_size=4))
def test_is_the_weighted_sum_of_the_loss_on_the_first_numbers(case, weights):
    x, y = case
    dims = list(range(x.shape[1], 0, -1))
    weights = weights[: len(dims)]
    loss = Matryoshka(Triplet(0.5), dims, weights)
    by_hand = sum(w * Triplet(0.5)(x[:, :d], y) for w, d in zip(weights, dims, strict=True))
    torch.testing.assert_close(loss(x, y), torch.as_tensor(by_hand, dtype=x.dtype))


@pytest.mark.parametrize("name", ["proxy-anchor", "cross-entropy", "pml:ContrastiveLoss", "group"])
def test_each_cut_has_proxies_of_its_own(name):
    x, y = batch([3, 3, 2], dim=6)
    torch.manual_seed(0)
    loss: Any = make("matryoshka", {"loss": name, "dims": "6,2"}, classes=3, dim=6).double()
    torch.manual_seed(0)
    parts = [make(name, classes=3, dim=d).double() for d in (6, 2)]
    expected = parts[0](x, y) + parts[1](x[:, :2], y)
    torch.testing.assert_close(loss(x, y), expected)
    assert loss.metric == "cosine"
    learnt = [n for n, _ in loss.named_parameters()]
    assert all(n.startswith(tuple(loss.rates())) for n in learnt if n)
    assert bool(learnt) == bool(loss.rates())


def test_a_function_builds_the_loss_of_each_cut():
    loss: Any = Matryoshka(lambda d: ProxyGML(10, d, proxies=2), dims=(8, 4))
    assert [part.proxies.shape[1] for part in loss.losses] == [8, 4]
    assert loss.rates() == {"losses.0.proxies": 0.03, "losses.1.proxies": 0.03}
    with pytest.raises(ValueError, match="ProxyGML has parameters of one size"):
        Matryoshka(ProxyGML(10, 8, proxies=2), dims=(8, 4))


def test_references_and_memory_are_cut_too():
    (old, old_y), (x, y) = batch([3, 2, 2], dim=4), batch([2, 1, 3], dim=4, seed=1)
    loss = Matryoshka(Contrastive(), dims="4,2")
    by_hand = Contrastive()(x, y, None, old, old_y)
    by_hand = by_hand + Contrastive()(x[:, :2], y, None, old[:, :2], old_y)
    torch.testing.assert_close(loss(x, y, None, old, old_y), by_hand)
    whole, parts = Memory(loss, 100), [Memory(Contrastive(), 100) for _ in range(2)]
    for inputs, labels in ((old, old_y), (x, y)):
        value = whole(inputs, labels)
        expected = parts[0](inputs, labels) + parts[1](inputs[:, :2], labels)
    torch.testing.assert_close(value, expected)
    with pytest.raises(ValueError, match="no use for a memory"):
        Memory(Matryoshka("n-pair", dims="4,2"))


def test_active_is_the_mean_over_the_cuts():
    x, y = batch([3, 3, 2], dim=4)
    loss = Matryoshka(Triplet(0.5), dims="4,1")
    shares = [float(Triplet(0.5).active(x[:, :d], y)) for d in (4, 1)]
    assert float(loss.active(x, y)) == pytest.approx(sum(shares) / 2)
    assert not hasattr(Matryoshka("cross-entropy", dims="2", classes=3), "active")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dims": "0,2"}, "different numbers of 1 or more of 16 at most, got 0,2"),
        ({"dims": "32,2"}, "of 16 at most"),
        ({"dims": "2,2"}, "different numbers"),
        ({"dims": "2,x"}, "wanted numbers such as 8,16,64, got '2,x'"),
        ({"weights": "1,2,3"}, "weights must be as many as dims, got 3 and 2"),
        ({"weights": "1,-2"}, "weights must be a number of 0 or more, got -2"),
        ({"triplet.margn": 1.0}, "unknown option of triplet 'margn'"),
        ({"margin": 1.0}, r"unknown option of matryoshka 'margin': .* triplet\.OPTION"),
        ({"loss": "tripelt"}, "did you mean 'triplet'"),
        ({"loss": "triplet", "contrastive.margin": 1.0}, "unknown option of matryoshka"),
    ],
)
def test_options_are_strict(options, said):
    with pytest.raises(ValueError, match=said):
        make("matryoshka", options, dim=16)


def test_embeddings_that_are_too_short_are_refused():
    x, y = batch([3, 3])
    with pytest.raises(ValueError, match="wanted embeddings of 4 dimensions or more, got"):
        Matryoshka("contrastive", dims="4,2")(x, y)
    with pytest.raises(ValueError, match="must be given dims, or dim"):
        Matryoshka("contrastive")


def test_its_options_are_part_of_a_recipe():
    known = losses.parameters("matryoshka", {"loss": "contrastive"})
    assert known["contrastive.margin"].default == 1.0
    one = Recipe(loss="matryoshka", loss_options={"loss": "contrastive", "contrastive.margin": 1})
    assert one.hash == Recipe(loss="matryoshka", loss_options={"loss": "contrastive"}).hash
    nested = {"loss": "combined", "combined.terms": "triplet", "combined.triplet.margin": 0.2}
    loss: Any = make("matryoshka", nested, dim=16)
    assert loss.losses[0].losses[0].margin == 0.2
    assert losses.parameters("matryoshka", nested)["combined.triplet.margin"].default == 0.2


def test_the_example_shows_what_a_cut_costs(tmp_path, monkeypatch):
    path = Path(__file__).parents[1] / "examples" / "matryoshka.py"
    monkeypatch.chdir(tmp_path)
    whole, fewer = nk.Recipe, {"filters": "8,16", "units": "32"}
    monkeypatch.setattr(nk, "Recipe", lambda **given: whole(**given, backbone_options=fewer))
    found = runpy.run_path(str(path))["main"](epochs=1, seeds=1)
    plain, nested = found.values()
    assert nested[4] > plain[4] + 5
    assert nested[64] > plain[64] - 3
