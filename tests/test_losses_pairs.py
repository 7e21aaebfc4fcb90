"""Contrastive equals its formula pair by pair, and pytorch-metric-learning where the two agree."""

import pytest
import torch
from hypothesis import given, settings
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import GenericPairLoss
from pytorch_metric_learning.reducers import MeanReducer
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices

from batches import batch, batches, gradient
from nearkin.losses import Contrastive


def pair_by_pair(x, y, margin=1.0, references=None):
    """Hadsell et al., eqs. 2-4: mean of d^2 / 2 over kin, [m - d]+^2 / 2 over others."""
    r, z = (x, y) if references is None else references
    terms = []
    for i in range(len(x)):
        for j in range(len(r)):
            if references is None and i == j:
                continue
            d = (x[i] - r[j]).norm()
            terms.append(d**2 / 2 if y[i] == z[j] else max(margin - d, 0) ** 2 / 2)
    return sum(terms) / max(len(terms), 1)


@settings(max_examples=50, deadline=None)
@given(batches())
def test_equals_the_formula_pair_by_pair(case):
    x, y = case
    for margin in (0.5, 2.0):
        ours = Contrastive(margin)(x, y)
        torch.testing.assert_close(
            ours, torch.as_tensor(pair_by_pair(x, y, margin)).double(), atol=1e-6, rtol=1e-6
        )


def test_gradcheck():
    x, y = batch([3, 2, 1])
    assert torch.autograd.gradcheck(Contrastive(1.5), (x.requires_grad_(), y))


def test_references_are_searched_in_place_of_the_batch():
    (x, y), (r, z) = batch([2, 2, 1]), batch([3, 1, 2], seed=1)
    ours = Contrastive()(x, y, ref_emb=r, ref_labels=z)
    torch.testing.assert_close(ours, pair_by_pair(x, y, references=(r, z)))
    with pytest.raises(ValueError, match="go together"):
        Contrastive()(x, y, ref_emb=r)


@pytest.mark.parametrize("references", [lambda x: x, torch.detach, torch.clone])
def test_the_batch_as_references_is_the_batch_without_references(references):
    x, y = batch([3, 2, 1])
    ours = Contrastive(2.0)(x, y, None, references(x), y)
    torch.testing.assert_close(ours, Contrastive(2.0)(x, y))


def test_the_batch_as_references_learns_from_both_ends_of_a_pair():
    x, y = batch([3, 2, 1])
    found = gradient(lambda x: Contrastive(2.0)(x, y, None, x, y), x)
    torch.testing.assert_close(found, gradient(Contrastive(2.0), x, y))


def test_others_at_the_margin_are_not_active():
    x, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([7, 8, 9])
    assert Contrastive(margin=2.0).active(x, y) == 1 / 3  # distances 1, 2 and 3


class SquaredContrastive(GenericPairLoss):
    """PML's frame with our pairs' terms: its own ContrastiveLoss does not square them."""

    def __init__(self, margin):
        super().__init__(
            mat_based_loss=False,
            distance=LpDistance(normalize_embeddings=False),
            reducer=MeanReducer(),
        )
        self.margin = margin

    def _compute_loss(self, pos_pair_dist, neg_pair_dist, indices_tuple):
        terms = {
            "pos_loss": (pos_pair_dist**2 / 2, indices_tuple[:2], "pos_pair"),
            "neg_loss": (
                (self.margin - neg_pair_dist).relu() ** 2 / 2,
                indices_tuple[2:],
                "neg_pair",
            ),
        }
        return {
            name: {"losses": losses, "indices": indices, "reduction_type": kind}
            for name, (losses, indices, kind) in terms.items()
        }

    def _sub_loss_names(self):
        return ["pos_loss", "neg_loss"]


def test_equals_its_twin_in_pytorch_metric_learning():
    """PML adds the mean over kin and the mean over others; weigh ours by their numbers."""
    x, y = batch([4, 3, 5])
    a1, _, a2, _ = all_pairs = get_all_pairs_indices(y)
    kin = (all_pairs[0], all_pairs[1], a2[:0], a2[:0])
    others = (a1[:0], a1[:0], all_pairs[2], all_pairs[3])
    ours = Contrastive(2.0)(x, y, kin) + Contrastive(2.0)(x, y, others)
    torch.testing.assert_close(ours, SquaredContrastive(2.0)(x, y), atol=1e-6, rtol=1e-6)


def test_mined_pairs_are_honoured_as_often_as_they_are_named():
    x, y = batch([3, 3])
    everything = get_all_pairs_indices(y)
    torch.testing.assert_close(Contrastive()(x, y, everything), Contrastive()(x, y))
    twice = (torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([2]), torch.tensor([3]))
    d = torch.cdist(x, x)
    by_hand = (2 * d[0, 1] ** 2 / 2 + max(1 - d[2, 3], 0) ** 2 / 2) / 3
    torch.testing.assert_close(Contrastive()(x, y, twice), by_hand)
    triplets = (torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([2, 3]))
    by_hand = sum([d[0, 1] ** 2] * 2 + [(1 - d[0, n]).clamp_min(0) ** 2 for n in (2, 3)]) / 2 / 4
    torch.testing.assert_close(Contrastive()(x, y, triplets), by_hand)
    with pytest.raises(ValueError, match="3 or 4 tensors"):
        Contrastive()(x, y, triplets[:2])


def test_active_is_the_share_of_others_within_the_margin():
    x, y = torch.tensor([[0.0], [0.1], [0.5], [9.0]]), torch.tensor([0, 0, 1, 2])
    assert Contrastive(1.0).active(x, y) == 4 / 10
    assert gradient(Contrastive(1.0), x, y)[3] == 0


def test_a_margin_must_be_above_0():
    with pytest.raises(ValueError, match="got 0"):
        Contrastive(0)
