"""Group loss is the released code's arithmetic; label propagation is Zhou et al.'s closed form."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.semi_supervised import LabelSpreading

from batches import batch
from nearkin.losses import GroupLoss, make
from nearkin.losses.group import replicate
from nearkin.measure import label_propagation, neighbours, propagation, propagation_accuracy


def slow(loss, embeddings, labels):
    """The loss, sample by sample and class by class."""
    classes = len(loss.classifier.bias)
    count = len(labels)
    logits = [loss.classifier.weight @ x + loss.classifier.bias for x in embeddings]
    beliefs, seen, total = [], {}, torch.zeros((), dtype=embeddings.dtype)
    for i, y in enumerate(labels.tolist()):
        total = total - logits[i].log_softmax(0)[y]
        seen[y] = seen.get(y, 0) + 1
        clamped = seen[y] <= loss.anchors
        truth = [float(c == y) for c in range(classes)]
        soft = (logits[i] / loss.temperature).softmax(0)
        beliefs.append([truth[c] if clamped else soft[c] for c in range(classes)])
    for _ in range(loss.iterations):
        following = []
        for i in range(count):
            weight = [torch.corrcoef(embeddings[[i, j]])[0, 1].clamp_min(0) for j in range(count)]
            support = [
                beliefs[i][c] * sum(weight[j] * beliefs[j][c] for j in range(count))
                for c in range(classes)
            ]
            following.append([s / sum(support) for s in support])
        beliefs = following
    for i, y in enumerate(labels.tolist()):
        total = total - loss.weight * torch.log(torch.as_tensor(beliefs[i][y]))
    return total / count


@pytest.mark.parametrize(
    "options",
    [{}, {"iterations": 3, "temperature": 2.0}, {"anchors": 0}, {"anchors": 1, "weight": 0.5}],
    ids=str,
)
def test_group_loss_is_the_slow_loop(options):
    torch.manual_seed(0)
    loss = GroupLoss(classes=3, dim=6, **options).double()
    loss.classifier.bias.data.normal_()
    x, y = batch([4, 3, 2], dim=6)
    x.requires_grad_()
    value, expected = loss(x, y), slow(loss, x, y)
    torch.testing.assert_close(value, expected)
    tensors = (x, loss.classifier.weight)
    torch.testing.assert_close(
        torch.autograd.grad(value, tensors), torch.autograd.grad(expected, tensors)
    )


def test_group_loss_with_all_anchors_is_cross_entropy():
    loss = GroupLoss(classes=3, dim=6, anchors=9).double()
    x, y = batch([4, 3, 2], dim=6)
    torch.testing.assert_close(loss(x, y), loss.classifier(x, y))


def test_the_dynamics_keep_clamped_beliefs_and_follow_the_alike():
    x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.5], [3.0, 2.0, 1.0]])
    beliefs = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    after = replicate(torch.corrcoef(x).relu(), beliefs, iterations=10)
    assert after[0].tolist() == [0, 1]
    assert after[1, 1] > 0.99  # like the clamped one
    torch.testing.assert_close(after[2], beliefs[2])  # like nobody
    torch.testing.assert_close(after.sum(1), torch.ones(3))


def test_group_loss_is_registered_and_strict():
    loss = make("group", {"anchors": 1}, classes=4, dim=3)
    assert isinstance(loss, GroupLoss)
    assert loss.rates() == {"classifier.": 0.01}
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.3, got 0\.\.4"):
        loss(torch.randn(2, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="takes no miner"):
        loss(torch.randn(2, 3), torch.tensor([0, 1]), (torch.tensor([0]),) * 3)
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        GroupLoss(4, 3, temperature=0.0)


def graph(x, k):
    """W, dense, from the definition."""
    similarity, nearest = neighbours(x, k)
    weights = torch.zeros(len(x), len(x), dtype=torch.double)
    for i in range(len(x)):
        for s, j in zip(similarity[i], nearest[i], strict=True):
            weights[i, j] = weights[j, i] = max(float(s), 0)
    return weights


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(12, 40),
    k=st.integers(1, 6),
    alpha=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 99),
)
@example(count=22, k=2, alpha=0.2, seed=81)  # scikit-learn's usual tolerance stops it too early
def test_propagation_is_the_closed_form_and_scikit_learns(count, k, alpha, seed):
    torch.manual_seed(seed)
    labels = torch.randint(3, (count,))
    x = torch.eye(3).repeat(1, 2)[labels].double() + 0.7 * torch.randn(count, 6).double()
    known = torch.rand(count) < 0.4
    known[:2] = True
    found: Any = label_propagation(x, 10 * labels + 5, known, k=k, alpha=alpha, steps=300)

    weights = graph(x, k)
    root = weights.sum(1).rsqrt().nan_to_num(posinf=0)
    spread = root[:, None] * weights * root[None, :]
    classes, kind = labels[known].unique(return_inverse=True)
    source = torch.zeros(count, len(classes), dtype=torch.double)
    source[known.nonzero()[:, 0], kind] = 1
    belief = torch.linalg.solve(torch.eye(count).double() - alpha * spread, source)
    reached = belief.max(1).values > 1e-12
    two = belief.topk(min(2, len(classes))).values
    clear = reached & (two[:, 0] - two[:, -1] > 1e-9) if len(classes) > 1 else reached
    expected = 10 * classes[belief.argmax(1)] + 5
    assert (found == expected)[clear].all()
    assert (found == -1)[~reached].all()

    if alpha > 0:
        given_labels = torch.where(known, labels, -1)
        precomputed: Any = {"kernel": lambda a, b: weights.numpy()}
        theirs = LabelSpreading(alpha=alpha, max_iter=1000, tol=1e-12, **precomputed)
        theirs.fit(x.numpy(), given_labels.numpy())
        assert (10 * theirs.transduction_ + 5 == found.numpy())[clear.numpy()].all()


def test_blocks_of_classes_change_nothing(monkeypatch):
    torch.manual_seed(0)
    labels = torch.arange(10).repeat_interleave(6)
    x = torch.randn(10, 5)[labels] + 0.5 * torch.randn(60, 5)
    known = torch.arange(60) % 6 == 0
    whole: Any = label_propagation(x, labels, known)
    monkeypatch.setattr(propagation, "CELLS", 180)  # 3 classes at a time
    assert (label_propagation(x, labels, known) == whole).all()


@pytest.mark.parametrize("seed", range(3))
def test_half_precision_is_propagated_in_float32(seed):
    torch.manual_seed(seed)
    labels = torch.arange(10).repeat_interleave(6)
    half = (torch.randn(10, 5)[labels] + 2 * torch.randn(60, 5)).bfloat16()
    known = torch.arange(60) % 6 == 0
    expected: Any = label_propagation(half.float(), labels, known)
    assert (label_propagation(half, labels, known) == expected).all()


def test_accuracy_is_1_for_clusters_and_chance_for_noise():
    torch.manual_seed(0)
    labels = torch.arange(5).repeat_interleave(20)
    clusters = 10 * torch.randn(5, 8)[labels] + torch.randn(100, 8)
    assert propagation_accuracy(clusters, labels) == 1
    assert propagation_accuracy(torch.randn(100, 8), labels) < 0.5
    few = propagation_accuracy(clusters + 8 * torch.randn(100, 8), labels, 1)
    many = propagation_accuracy(clusters + 8 * torch.randn(100, 8), labels, 10)
    assert few < many
    astray = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])  # all beside others
    assert propagation_accuracy(astray, torch.tensor([0, 0, 1, 1]), k=1) < 0.5
    assert propagation_accuracy(clusters.half(), labels) == 1
    with pytest.raises(ValueError, match="leaves no item"):
        propagation_accuracy(clusters, labels, per_class=20)
    with pytest.raises(ValueError, match="wanted 1 draw or more, got 0"):
        propagation_accuracy(clusters, labels, draws=0)


def test_propagation_refuses_what_it_cannot_use():
    x, labels, known = torch.randn(4, 2), torch.arange(4), torch.ones(4, dtype=torch.bool)
    for bad, message in [
        ({"alpha": 1.0}, "alpha must be"),
        ({"metric": "euclidean"}, "metric must be"),
        ({"known": ~known}, "true for at least one"),
    ]:
        with pytest.raises(ValueError, match=message):
            label_propagation(x, labels, **{"known": known, **bad})
