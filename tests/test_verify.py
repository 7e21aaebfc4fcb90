"""Verification counts every pair once, and a threshold keeps on new classes what it promises."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

import nearkin as nk
from nearkin.measure import verify


def world(random, classes, each, dim=16, spread=0.5):
    """Unit embeddings (N, dim) of classes whose spread differs, and their labels."""
    centres = random.standard_normal((classes, 1, dim)) * np.linspace(2, 0.3, dim)
    spreads = spread * np.exp(0.3 * random.standard_normal((classes, 1, 1)))
    x = centres + spreads * random.standard_normal((classes, each, dim))
    x = x.reshape(-1, dim) / np.linalg.norm(x.reshape(-1, dim), axis=1, keepdims=True)
    return x.astype(np.float32), np.repeat(np.arange(classes), each)


def all_pairs(x, labels, metric="cosine"):
    """Similarity of every pair i < j in float64, and whether it is kin: the plain way."""
    i, j = np.triu_indices(len(x), 1)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    if metric == "euclidean":
        score = -np.linalg.norm(x[i].astype(float) - x[j], axis=1)
    else:
        score = (x[i].astype(float) * x[j]).sum(1)
    return score, labels[i] == labels[j]


@pytest.mark.parametrize("metric", ["cosine", "inner", "euclidean"])
def test_the_curve_is_that_of_all_pairs(metric):
    x, labels = world(np.random.default_rng(0), 12, 5)
    x = x * np.random.default_rng(1).uniform(0.5, 2, (len(x), 1)).astype(np.float32)
    found = nk.verify.curve(x, labels, metric=metric, memory=1e5)  # in many blocks
    score, kin = all_pairs(x, labels, metric)
    assert found.kin[0] == kin.sum()
    assert found.others[0] == (~kin).sum()
    assert found.kin[-1] == found.others[-1] == 0
    for at in range(0, len(found.thresholds), 997):
        clear = np.abs(score - found.thresholds[at]) > 1e-6  # of rounding
        accepted = score >= found.thresholds[at]
        for count, which in ((found.kin[at], kin), (found.others[at], ~kin)):
            assert abs(count - (accepted & which).sum()) <= (~clear & which).sum()
    assert found.auroc == pytest.approx(roc_auc_score(kin, score), abs=1e-4)
    false, true, _ = roc_curve(kin, score)
    assert found.tar_at(0.05) == pytest.approx(true[false <= 0.05].max(), abs=2e-3)
    frr = 1 - true
    assert found.eer()[0] == pytest.approx(
        (false + frr)[np.abs(false - frr).argmin()] / 2, abs=2e-3
    )


def test_a_rate_that_too_few_pairs_could_show_is_none():
    x, labels = world(np.random.default_rng(0), 5, 4)  # 160 pairs of others
    found = verify.curve(x, labels)
    assert found.tar_at(1e-2) is None
    assert found.tar_at(0.02) is not None


def test_perfect_and_useless_similarities_have_their_areas():
    labels = np.repeat(np.arange(4), 3)
    apart = np.eye(4, dtype=np.float32)[labels]
    assert verify.curve(apart, labels).auroc == 1
    assert verify.curve(apart, labels).eer()[0] == 0
    assert verify.curve(np.ones_like(apart), labels).auroc == 0.5


def test_the_promise_is_kept_on_new_classes_in_simulated_worlds():
    far, worlds = 1e-2, 60
    other, kinds = world(np.random.default_rng(7), 300, 6)
    score, kin = all_pairs(other, kinds)
    strange = np.sort(score[~kin])
    kept = 0
    for seed in range(worlds):
        x, labels = world(np.random.default_rng(100 + seed), 25, 4)
        found = nk.verify.threshold(x, labels, far=far)
        assert found.value is not None
        assert found.measured <= far
        kept += 1 - np.searchsorted(strange, found.value) / len(strange) <= far
    assert kept >= 0.95 * worlds


def test_the_plain_quantile_would_break_the_promise():
    """What the bounds are for: half of the worlds have a worse rate than the one measured."""
    other, kinds = world(np.random.default_rng(7), 300, 6)
    score, kin = all_pairs(other, kinds)
    strange, kept = np.sort(score[~kin]), 0
    for seed in range(60):
        here, kin = all_pairs(*world(np.random.default_rng(100 + seed), 25, 4))
        plain = np.quantile(here[~kin], 0.99)
        kept += 1 - np.searchsorted(strange, plain) / len(strange) <= 1e-2
    assert kept < 0.75 * 60


def test_the_promise_over_nearest_items_is_kept():
    far, worlds, kept = 0.05, 20, 0
    new, _ = world(np.random.default_rng(9), 3000, 1)
    for seed in range(worlds):
        x, labels = world(np.random.default_rng(100 + seed), 100, 6)
        found = nk.verify.threshold(x, labels, over="nearest", far=far)
        assert found.value is not None
        kept += ((new @ x.T).max(1) >= found.value).mean() <= far
    assert kept >= 0.95 * worlds


def test_too_few_classes_are_told_how_many_it_takes():
    x, labels = world(np.random.default_rng(0), 20, 8)
    found = nk.verify.threshold(x, labels, far=1e-3)
    assert found.value is None
    assert (found.classes, found.wanted) == (20, 78)
    assert "takes about 58 more classes than these 20" in str(found)


def test_a_similarity_that_tells_nothing_is_told():
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((200, 8)).astype(np.float32), np.arange(200) % 50
    found = nk.verify.threshold(x, labels, far=1e-2)
    assert found.value is None
    assert str(found).startswith("cannot tell kin from others")


def test_equal_scores_are_accepted_together():
    """All pairs of others are equally similar: none can be accepted, and kin still are."""
    labels = np.repeat(np.arange(30), 3)
    found = nk.verify.threshold(np.eye(30, dtype=np.float32)[labels], labels, far=1e-2)
    assert found.value is not None
    assert 0 < found.value <= 1
    assert (found.measured, found.tar) == (0, 1)


def test_open_set_tells_known_from_unknown():
    x, labels = world(np.random.default_rng(3), 80, 6)
    first = np.arange(len(x)) % 6 < 3
    gallery = first & (labels < 50)
    found = verify.open_set(x[~first], labels[~first], x[gallery], labels[gallery])
    known = labels[~first] < 50
    near = x[~first] @ x[gallery].T
    best, right = near.max(1), labels[gallery][near.argmax(1)] == labels[~first]
    assert found.auroc == pytest.approx(roc_auc_score(known, best), abs=1e-6)
    line = np.sort(best[~known])[::-1][int(0.1 * (~known).sum())]
    wanted = (right & (best > line))[known].mean()
    assert found.dir_at(0.1) == pytest.approx(wanted)
    assert found.dir_at(0.01) is None  # 90 unknown queries


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: verify.curve(torch.eye(3), [0, 1, 2]), "at least one kin pair, got none"),
        (lambda: verify.curve(torch.eye(3), [0, 0, 0]), "at least one pair of others"),
        (lambda: verify.curve(torch.eye(3), [0, 0]), r"labels must be 3, .* got \(2,\)"),
        (lambda: verify.threshold(torch.eye(3), [0, 0, 1], far=0), "far must be between 0 and 1"),
        (lambda: verify.threshold(torch.eye(3), [0, 0, 1], over="all"), "over must be pairs or"),
        (lambda: verify.open_set(torch.eye(2), [0, 1], torch.eye(2), [0, 1]), "got all known"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        asked()
