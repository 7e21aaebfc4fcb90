"""Scattering and separation are those of scikit-learn and of a loop over classes."""

import numpy as np
import pytest
import torch
from sklearn.metrics import calinski_harabasz_score

from nearkin.measure import confusion, overlap, scattering


def sample(classes=4, count=9):
    random = np.random.default_rng(0)
    y = random.permutation(np.repeat(np.arange(classes), count))
    noise = random.normal(size=(len(y), 3)) * [1, 2, 0.3]
    return torch.from_numpy(random.normal(size=(classes, 3))[y] + noise), torch.from_numpy(y)


def test_separation_is_that_of_calinski_and_harabasz():
    x, y = sample()
    score = calinski_harabasz_score(x, y)  # tr B / tr W (N - C) / (C - 1)
    assert scattering(x, y)["separation"] == pytest.approx(score * (4 - 1) / (len(x) - 4))


def test_spread_and_anisotropy_class_by_class():
    x, y = sample()
    spread, lines = 0.0, []
    for c in range(4):
        own = x[y == c].numpy()
        values = np.linalg.eigvalsh(np.cov(own.T, bias=True))
        spread += values.sum() * len(own) / len(x)
        shares = values / values.sum()
        lines.append(1 - (np.exp(-(shares * np.log(shares)).sum()) - 1) / (3 - 1))
    found = scattering(x, y)
    assert found["spread"] == pytest.approx(spread)
    assert found["anisotropy"] == pytest.approx(np.mean(lines))


def test_turns_shifts_and_scales_change_the_spread_alone():
    x, y = sample()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    found, moved = scattering(x, y), scattering(5 * x @ torch.from_numpy(turn) + 7, y + 3)
    assert moved == pytest.approx(found | {"spread": 25 * found["spread"]})


def test_points_have_no_separation_that_a_number_could_tell():
    x, y = sample()
    corners = torch.eye(4, dtype=torch.double)[y]
    assert scattering(corners, y) == {"spread": 0, "anisotropy": 1}
    assert scattering(0 * x, y) == {"spread": 0, "anisotropy": 1, "separation": 0}
    with pytest.raises(ValueError, match=r"matrix of numbers.* got \(0, 3\)"):
        scattering(x[:0], y[:0])


def test_confusion_and_overlap_item_by_item():
    x, y = sample()
    distance = torch.cdist(x, x).fill_diagonal_(torch.inf)
    counts = torch.zeros(4, 4, dtype=torch.long)
    for i, j in enumerate(distance.argmin(1).tolist()):
        counts[y[i], y[j]] += 1
    assert torch.equal(confusion(x, y, metric="euclidean"), counts)
    mistaken = counts[0, 2] + counts[2, 0]
    assert overlap(counts, [0, 2]) == pytest.approx(mistaken.item() / (2 * 9))
