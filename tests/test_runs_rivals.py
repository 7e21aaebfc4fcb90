"""The five rivals in a run: each learns, and goes on bit for bit after a checkpoint."""

from typing import Any

import pytest
import torch
from torch import nn

from nearkin.data import Split, Splits
from nearkin.losses import HDML, HierarchicalTriplet
from nearkin.losses.protocol import start_epoch
from nearkin.measure import evaluate
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

TREE = {"tree": "epoch", "levels": 4}
RIVALS: dict[str, dict[str, Any]] = {
    "clustering": {"loss": "clustering"},
    "hdc": {"loss": "hdc", "backbone_options": {"stages": 3}},
    "hdc, cascade": {"loss": "hdc", "loss_options": {"cascade": True}},
    "hierarchical-triplet": {"loss": "hierarchical-triplet"},
    "hierarchical-triplet, epoch": {"loss": "hierarchical-triplet", "loss_options": TREE},
    "hierarchical-triplet, own batches": {
        "loss": "hierarchical-triplet",
        "sampler": "neighbours",
        "per_class": 2,
    },
    "triplet on the same batches": {"loss": "triplet", "sampler": "neighbours", "per_class": 2},
    "spanning-tree": {"loss": "contrastive", "miner": "spanning-tree"},
    "streams": {"loss": "contrastive", "sampler": "streams"},
    "hdml": {"loss": "hdml", "loss_options": {"window": 3}},
    "hdml, triplet": {"loss": "hdml", "loss_options": {"base": "triplet", "window": 3}},
    "hdml, triplets drawn": {
        "loss": "hdml",
        "loss_options": {"base": "triplet", "window": 3},
        "sampler": "triplets",
        "batch": 24,
    },
    "hdml of a sum": {"loss": "combined", "loss_options": {"terms": "triplet + hdml"}},
}


def clouds(classes: int = 8, each: int = 8, spread: float = 0.6, seed: int = 0) -> Splits:
    """Points of many dimensions of which two tell the classes: no class stands in two parts."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for part in range(2):
        y = torch.arange(classes).repeat_interleave(each)
        angle = 2 * torch.pi * (torch.arange(classes) + 0.5 * part) / classes
        place = torch.stack([angle.cos(), angle.sin()], 1)[y]
        told = place + 0.1 * torch.randn(len(y), 2, generator=generator)
        noise = spread * torch.randn(len(y), 14, generator=generator)
        names = tuple(f"{part}-{c}" for c in range(classes))
        parts.append(Split(torch.cat([told, noise], 1), y, names))
    return Splits("clouds", parts[0], parts[1], parts[1])


def recipe(**changes) -> Recipe:
    base = {"backbone": "linear", "dim": 6, "batch": 16, "per_class": 4, "epochs": 2, "lr": 0.01}
    return Recipe(**{**base, **changes})


def states(run: Run) -> dict[str, torch.Tensor]:
    parts = {"backbone": run.backbone.module, "loss": run.loss}
    return {f"{k}.{n}": t for k, part in parts.items() for n, t in part.state_dict().items()}


@pytest.mark.parametrize("stop", [3, 4, 6])
@pytest.mark.parametrize("name", RIVALS)
def test_a_resumed_run_is_the_run_bit_for_bit(name, stop, tmp_path):
    """Stopped within an epoch, at its end, and within the next; an epoch has four steps."""
    r, splits = recipe(**RIVALS[name], steps=8), clouds()
    whole = Run(r, splits, device="cpu")
    drawn = []
    for step in train(whole):
        drawn.append(whole.batches[(step.step - 1) % len(whole.batches)].tolist())
    first = Run(r, splits, device="cpu")
    for step in train(first):
        if step.step == stop:
            break
    save(first, tmp_path / "checkpoint.pt")
    second = Run(r, splits, device="cpu")
    restore(second, tmp_path / "checkpoint.pt")
    again = []
    for step in train(second):
        again.append(second.batches[(step.step - 1) % len(second.batches)].tolist())
    assert again == drawn[stop:]
    ours, theirs = states(second), states(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", RIVALS)
def test_each_learns_what_tells_the_classes(name):
    splits = clouds()
    run = Run(recipe(**RIVALS[name], dim=24, steps=60), splits, device="cpu")

    def score() -> float:
        x = run.embed(splits.query)
        return evaluate(x, splits.query.labels, ks=[1], precision_ks=[])["recall@1"]

    before = score()
    for _ in train(run):
        pass
    assert score() > before + 0.1


@pytest.mark.parametrize("name", ["streams", "hierarchical-triplet, own batches"])
def test_a_checkpoint_that_knows_what_is_not_there_is_refused(name, tmp_path):
    run = Run(recipe(**RIVALS[name], steps=8), clouds(), device="cpu")
    next(train(run))
    ((key, known),), path = run.known.items(), tmp_path / "checkpoint.pt"
    for wrong in ({key: known + 64}, {key: known - 2}, {key: known.float()}, {key: known[:, :1]}):
        run.known = wrong
        save(run, path)
        with pytest.raises(ValueError, match=r"does not fit its run.*delete it to begin anew"):
            restore(Run(run.recipe, clouds(), device="cpu"), path)
    run.known = {"friends": known}
    save(run, path)
    with pytest.raises(ValueError, match="near classes or edges by name"):
        restore(Run(run.recipe, clouds(), device="cpu"), path)


def test_batches_of_neighbours_follow_the_tree_of_the_epoch():
    r = recipe(**RIVALS["hierarchical-triplet, own batches"], steps=8)
    run = Run(r, clouds(), device="cpu")
    known = []
    for step in train(run):
        if step.step % 4 == 1:
            known.append(run.known["near"].clone())
        labels = run.labels[run.batches[(step.step - 1) % 4]].view(2, 4, 2)
        assert (labels[..., 0] == labels[..., 1]).all()
        groups = labels[..., 0]
        assert groups.unique().numel() == 8
    near = run.loss.near(15)
    assert torch.equal(known[1], near)  # the running tree of the first epoch
    assert not torch.equal(known[0], known[1])


def test_the_trees_of_streams_are_made_once():
    run = Run(recipe(**RIVALS["streams"], steps=12), clouds(), device="cpu")
    seen = []
    for _ in train(run):
        seen.append(run.known["edges"])
    assert all(edges is seen[0] for edges in seen)
    assert len(seen[0]) == 8 * 7
    assert (run.labels[seen[0][:, 0]] == run.labels[seen[0][:, 1]]).all()


def test_a_survey_is_of_all_training_images_as_they_are(monkeypatch):
    r = recipe(**RIVALS["hierarchical-triplet, epoch"], steps=8)
    run, seen = Run(r, clouds(), device="cpu"), []
    survey = type(run.loss).survey
    monkeypatch.setattr(
        type(run.loss), "survey", lambda self, x, y: (seen.append((x, y)), survey(self, x, y))
    )
    for _ in train(run):
        pass
    assert [tuple(x.shape) for x, _ in seen] == [(64, 6)] * 2
    assert all(torch.equal(y, run.labels) for _, y in seen)
    assert not torch.equal(seen[0][0], seen[1][0])
    start_epoch(run.loss, run.survey(), run.labels)


class Two(nn.Module):
    """A backbone of one's own, with batch norm in its trunk."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, 10), nn.BatchNorm1d(10))
        self.head = nn.Linear(10, 6)

    def forward(self, x):
        return self.head(self.trunk(x))


@pytest.mark.parametrize(
    "loss", [HDML(8, 6, 10), HierarchicalTriplet(8, 6, tree="epoch")], ids=["hdml", "tree"]
)
def test_own_networks_and_losses_are_served_alike(loss):
    asked = recipe(sampler="neighbours", per_class=2, steps=6)
    run = Run(asked, clouds(), "cpu", backbone=Two(), loss=loss)
    state = loss.state_dict()["steps" if isinstance(loss, HDML) else "sizes"]
    assert not state.any()
    for _ in train(run):
        pass
    assert state.any()


def test_hdml_wants_features():
    for loss, said in (
        (HDML(8, 6, 10), "HDML wants a backbone with a `trunk` and a `head`, got Linear"),
        (None, "hdml is built for the features of a backbone that is named"),
    ):
        with pytest.raises(ValueError, match=said):
            Run(recipe(loss="hdml"), clouds(), "cpu", backbone=nn.Linear(16, 6), loss=loss)


def test_hdml_is_refused_in_pieces():
    with pytest.raises(ValueError, match="looks at the features of whole batches"):
        Run(recipe(loss="hdml", chunk=8), clouds(), device="cpu")


def test_a_hdml_that_is_not_finite_is_a_diverged_run(tmp_path, monkeypatch):
    import nearkin as nk
    from nearkin.losses import synthesis

    def broken(*given):
        return torch.full_like(given[0], torch.nan)

    monkeypatch.setattr(synthesis, "pulled_in", broken)
    monkeypatch.setattr("nearkin.runs.engine.splits_of", lambda *_: clouds())
    result = nk.run(recipe(loss="hdml", steps=8), tmp_path, place=nk.Place(device="cpu"))
    assert result.row.status == "diverged"
