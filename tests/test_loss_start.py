"""Proxies and classifiers that start at the means of the classes' embeddings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nearkin import losses
from nearkin.data import load
from nearkin.losses.protocol import part_means
from nearkin.runs.build import refuse_unfit
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

CLASSES, DIM = 7, 5
WITH_MEANS = {
    "cross-entropy": lambda loss: loss.weight,
    "normalised-cross-entropy": lambda loss: loss.weight,
    "arcface": lambda loss: loss.loss.W.T,
    "proxy-anchor": lambda loss: loss.loss.proxies,
    "proxy-nca": lambda loss: loss.loss.proxies,
    "soft-triple": lambda loss: loss.loss.fc.T,
    "proxy-gml": lambda loss: loss.proxies,
}
"""Loss -> its parts, a row each, class by class."""


@pytest.fixture
def points() -> tuple[torch.Tensor, torch.Tensor]:
    """Classes of 3 to 9 points around centres far apart, in no order."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(torch.arange(3, 3 + CLASSES))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = 4 * torch.randn(CLASSES, DIM, generator=generator)
    return centres[labels] + torch.randn(len(labels), DIM, generator=generator), labels


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_means_of_parts_are_those_of_every_kth_item(points, parts):
    x, labels = points
    found = part_means(x, labels, CLASSES, parts)
    for c in range(CLASSES):
        of_class = x[labels == c]
        for k in range(parts):
            part = of_class[k::parts]
            wanted = part.mean(0) if len(part) else of_class.mean(0)
            torch.testing.assert_close(found[c, k], wanted)


@pytest.mark.parametrize("name", WITH_MEANS)
def test_a_loss_starts_at_the_means_of_its_classes(name, points):
    x, labels = points
    loss: Any = losses.make(name, {}, classes=CLASSES, dim=DIM)
    before = loss(x, labels).item()
    loss.start_at(x, labels)
    rows = WITH_MEANS[name](loss)
    z = x if name == "cross-entropy" else x / x.norm(dim=1, keepdim=True)
    wanted = part_means(z, labels, CLASSES, len(rows) // CLASSES).flatten(0, 1)
    torch.testing.assert_close(rows.detach(), wanted)
    assert all(p.requires_grad and p.is_leaf for p in loss.parameters())
    assert loss(x, labels).item() < before


def test_the_classifier_of_cross_entropy_is_that_of_the_nearest_mean(points):
    x, labels = points
    loss: Any = losses.make("cross-entropy", {}, classes=CLASSES, dim=DIM)
    loss.start_at(x, labels)
    means = part_means(x, labels, CLASSES)[:, 0]
    assert torch.equal(loss.logits(x).argmax(1), torch.cdist(x, means).argmin(1))


def test_a_run_starts_there_and_a_loss_without_such_parts_is_refused(tmp_path):
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    path = tmp_path / "x.npz"
    np.savez(path, x=random.normal(size=(96, 6)).astype(np.float32) + y[:, None], y=y)
    recipe = Recipe(data=f"features:{path}", backbone="linear", dim=4, batch=16, epochs=1)
    recipe = replace(recipe, loss="proxy-anchor", loss_start="means", head_start="whitened")
    result = run(recipe, tmp_path / "out", place=Place(device="cpu", threads=1))
    assert result.row.status == "done"
    assert result.row.hash != replace(recipe, loss_start="random").hash

    begun = Run(recipe, load(recipe.data), "cpu")
    z = torch.nn.functional.normalize(begun.embed(begun.splits.train), dim=1)
    wanted = part_means(z, begun.splits.train.labels, 6)[:, 0]
    torch.testing.assert_close(begun.loss.loss.proxies.detach(), wanted, atol=1e-5, rtol=1e-5)
    message = "loss_start=means wants a loss with proxies or a classifier .* got 'triplet'"
    with pytest.raises(ValueError, match=message):
        refuse_unfit(replace(recipe, loss="triplet"))
    with pytest.raises(ValueError, match="unknown loss_start 'mean'"):
        refuse_unfit(replace(recipe, loss_start="mean"))
