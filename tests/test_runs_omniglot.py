"""The five rivals on Omniglot, by the Network builder: 300 steps each, where its pictures lie."""

from typing import Any

import pytest
import torch

from nearkin.data import Splits, load
from nearkin.data.request import Absent, default_root
from nearkin.measure import evaluate
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

SMALL = {"filters": "8,16", "units": "128"}
RIVALS: dict[str, dict[str, Any]] = {
    "clustering": {"loss": "clustering"},
    "hdc": {"loss": "hdc", "backbone_options": {**SMALL, "stages": 3}},
    "hierarchical-triplet": {"loss": "hierarchical-triplet"},
    "own batches": {"loss": "hierarchical-triplet", "sampler": "neighbours"},
    "spanning-tree": {"loss": "pml-contrastive", "miner": "spanning-tree"},
    "streams": {"loss": "pml-contrastive", "sampler": "streams"},
    "hdml": {"loss": "hdml"},
}


@pytest.fixture(scope="module")
def omniglot() -> Splits:
    try:
        return load("omniglot", default_root().expanduser())
    except Absent as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", RIVALS)
def test_each_trains_for_300_steps_and_beats_the_untrained_network(name, omniglot):
    base: dict[str, Any] = {"backbone_options": SMALL, "size": 28, "dim": 32, "batch": 64}
    run = Run(Recipe(**{**base, **RIVALS[name]}, lr=1e-3, steps=300), omniglot, device="cpu")
    query = omniglot.query.select(torch.arange(3000))

    def score() -> float:
        return evaluate(run.embed(query), query.labels, ks=[1], precision_ks=[])["recall@1"]

    before, sums = score(), [0.0]
    for _ in train(run):
        sums.append(float(run.loss_sum))
    first, last = sums[50] - sums[0], sums[300] - sums[250]
    assert last < 0.97 * first
    assert score() > before + 0.1
