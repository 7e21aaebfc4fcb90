"""The triplet losses equal their formulas triplet by triplet, in values, gradients and counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_triplets_indices

from batches import batch, batches, gradient
from nearkin.losses import RatioTriplet, Triplet, triplets


def naive(x, y, references=None):
    """d_ap and d_an of every triplet, in a B^3 loop."""
    r, z = (x, y) if references is None else references
    pairs = [
        ((x[a] - r[p]).norm(), (x[a] - r[n]).norm())
        for a in range(len(x))
        for p in range(len(r))
        for n in range(len(r))
        if y[a] == z[p] != z[n] and not (references is None and a == p)
    ]
    if not pairs:
        return x[:0, 0], x[:0, 0]
    return tuple(torch.stack(side) for side in zip(*pairs, strict=True))


def naive_ratio(x, y, references=None):
    """Hoffer & Ailon: mean of (exp d_ap / (exp d_ap + exp d_an))^2."""
    near, far = naive(x, y, references)
    return ((near.exp() / (near.exp() + far.exp())) ** 2).sum() / max(len(near), 1)


def naive_hinge(x, y, margin=0.2, mean="all", references=None):
    """Mean of [d_ap - d_an + m]+ over all or over active triplets."""
    near, far = naive(x, y, references)
    hinge = (near - far + margin).clamp_min(0)
    return hinge.sum() / max(int((hinge > 0).sum()) if mean == "active" else len(hinge), 1)


@settings(max_examples=40, deadline=None)
@given(batches(largest=9))
def test_ratio_equals_the_formula(case):
    x, y = case
    torch.testing.assert_close(RatioTriplet()(x, y), naive_ratio(x, y), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        RatioTriplet(form="printed")(x, y), 2 * naive_ratio(x, y), atol=1e-6, rtol=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(batches(largest=9))
def test_hinge_equals_the_formula(case):
    x, y = case
    for margin in (0.15, 1.0):
        all_of_them = Triplet(margin, mean="all")(x, y)
        torch.testing.assert_close(all_of_them, naive_hinge(x, y, margin), atol=1e-6, rtol=1e-6)
        active = Triplet(margin)(x, y)
        torch.testing.assert_close(
            active, naive_hinge(x, y, margin, "active"), atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_gradients_equal_those_of_the_formula_whatever_the_block(block, monkeypatch):
    monkeypatch.setattr(triplets, "BLOCK", block)
    x, y = batch([4, 3, 5, 1])
    for ours, slow in (
        (RatioTriplet(), naive_ratio),
        (Triplet(0.5, mean="all"), lambda x, y: naive_hinge(x, y, 0.5)),
        (Triplet(0.5), lambda x, y: naive_hinge(x, y, 0.5, "active")),
    ):
        torch.testing.assert_close(ours(x, y), slow(x, y))
        torch.testing.assert_close(gradient(ours, x, y), gradient(slow, x, y))


def test_gradcheck():
    x, y = batch([3, 2, 1])
    for loss in (RatioTriplet(), RatioTriplet(form="printed"), Triplet(0.5)):
        assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 9), dim=st.integers(1, 4), seed=st.integers(0, 99))
def test_explicit_triplets_of_embeddings(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    anchor, positive, negative = torch.randn(3, count, dim, generator=generator).double()
    near, far = (anchor - positive).norm(dim=1), (anchor - negative).norm(dim=1)
    plus = near.exp() / (near.exp() + far.exp())
    minus = far.exp() / (near.exp() + far.exp())
    ours = RatioTriplet().triples(anchor, positive, negative)
    torch.testing.assert_close(ours, (plus**2).mean())
    printed = RatioTriplet(form="printed").triples(anchor, positive, negative)
    torch.testing.assert_close(
        printed, (plus**2 + (minus - 1) ** 2).mean()
    )  # n-tuple report, eq. 4
    assert RatioTriplet().triples(anchor[:0], anchor[:0], anchor[:0]) == 0
    same = RatioTriplet().triples(anchor, anchor, anchor)
    assert same == 1 / 4
    assert gradient(RatioTriplet().triples, anchor, anchor, anchor).isfinite().all()
    points = (anchor.requires_grad_(), positive.requires_grad_(), negative.requires_grad_())
    assert torch.autograd.gradcheck(RatioTriplet().triples, points)


def test_explicit_triplets_are_alike_in_shape_and_computed_in_float32():
    anchor, positive, negative = torch.randn(3, 5, 2).bfloat16()
    found = RatioTriplet().triples(anchor, positive, negative)
    expected = RatioTriplet().triples(anchor.float(), positive.float(), negative.float())
    torch.testing.assert_close(found, expected)
    for wrong in (positive[:1], positive[:, :1], positive[0]):
        with pytest.raises(ValueError, match=r"wanted anchors, positives and negatives \(T, D\)"):
            RatioTriplet().triples(anchor, wrong, negative)


@pytest.mark.parametrize("margin", [0.05, 0.5])
def test_hinge_equals_its_twin_in_pytorch_metric_learning(margin):
    x, y = batch([6, 5, 4, 3])
    theirs = TripletMarginLoss(margin, distance=LpDistance(normalize_embeddings=False))
    torch.testing.assert_close(Triplet(margin)(x, y), theirs(x, y), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        gradient(Triplet(margin), x, y), gradient(theirs, x, y), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("loss", [RatioTriplet(), Triplet(0.5), Triplet(0.5, mean="all")])
def test_miners_are_honoured(loss):
    x, y = batch([4, 3, 5])
    a, p, n = get_all_triplets_indices(y)
    torch.testing.assert_close(loss(x, y, (a, p, n)), loss(x, y))
    pairs = torch.stack([a, p]).unique(dim=1), torch.stack([a, n]).unique(dim=1)
    torch.testing.assert_close(loss(x, y, (*pairs[0], *pairs[1])), loss(x, y))
    some = torch.tensor([3, 3, 17])
    d = torch.cdist(x, x)
    near, far = d[a[some], p[some]], d[a[some], n[some]]
    if isinstance(loss, RatioTriplet):
        by_hand = (torch.sigmoid(near - far) ** 2).mean()
    else:
        hinge = (near - far + 0.5).clamp_min(0)
        by_hand = hinge.sum() / (len(hinge) if loss.mean == "all" else int((hinge > 0).sum()))
    torch.testing.assert_close(loss(x, y, (a[some], p[some], n[some])), by_hand)
    none = torch.tensor([], dtype=torch.long)
    assert loss(x, y, (none, none, none)) == 0
    assert loss(x, y, (none, none, none, none)) == 0


@pytest.mark.parametrize("references", [lambda x: x, torch.detach, torch.clone])
@pytest.mark.parametrize("loss", [RatioTriplet(), Triplet(mean="all"), Triplet()])
def test_the_batch_as_references_is_the_batch_without_references(loss, references):
    x, y = batch([3, 2, 1])
    torch.testing.assert_close(loss(x, y, None, references(x), y), loss(x, y))


def test_references_are_searched_in_place_of_the_batch():
    (x, y), (r, z) = batch([2, 2, 1]), batch([3, 1, 2], seed=1)
    ours = RatioTriplet()(x, y, ref_emb=r, ref_labels=z)
    torch.testing.assert_close(ours, naive_ratio(x, y, (r, z)))
    ours = Triplet(mean="all")(x, y, ref_emb=r, ref_labels=z)
    torch.testing.assert_close(ours, naive_hinge(x, y, references=(r, z)))


@settings(max_examples=40, deadline=None)
@given(batches(largest=9))
def test_active_counts(case):
    x, y = case
    near, far = naive(x, y)
    wrong = RatioTriplet().active(x, y)
    assert wrong == pytest.approx(float((far <= near).sum()) / max(len(near), 1), abs=1e-6)
    hinge = Triplet(0.3).active(x, y)
    assert hinge == pytest.approx(float((near - far + 0.3 > 0).sum()) / max(len(near), 1))


def test_a_collapsed_network_scores_a_quarter_and_the_margin():
    x, y = torch.ones(6, 2), torch.tensor([0, 0, 0, 1, 1, 2])
    assert RatioTriplet()(x, y) == 1 / 4
    assert Triplet(0.25)(x, y) == 0.25
    assert Triplet(0.25).active(x, y) == RatioTriplet().active(x, y) == 1


def test_an_unknown_form_or_mean_is_refused():
    with pytest.raises(ValueError, match="got 'left'"):
        RatioTriplet(form="left")
    with pytest.raises(ValueError, match="got 'some'"):
        Triplet(mean="some")
