"""Two recipes that come to the same run have one hash, whatever machine they are written on."""

import copy
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from nearkin import losses, models
from nearkin.data import load
from nearkin.data.transforms import PHOTOGRAPH_SIDE, batch
from nearkin.runs.identity import SIDES, canonical
from nearkin.runs.migrate import migrated
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.row import Row
from nearkin.runs.store import Store

GOLDEN = Path(__file__).parent / "golden"
RESULTS = Path(__file__).parents[1] / "docs" / "results"

SAME = {
    "an integer for a float": ({"loss": "contrastive"}, {"margin": 2}, {"margin": 2.0}),
    "a default": ({"loss": "contrastive"}, {"margin": 1.0}, {}),
    "a default, as an integer": ({"loss": "contrastive"}, {"margin": 1}, {}),
    "minus nothing": ({"loss": "contrastive"}, {"margin": -0.0}, {"margin": 0}),
    "a rival's own setting": ({"loss": "arcface"}, {"scale": 64, "margin": 28.6}, {}),
    "a class of the peer": ({"loss": "pml:ContrastiveLoss"}, {"pos_margin": 0}, {}),
    "the peer's integer": ({"loss": "pml:NTXentLoss"}, {"temperature": 1}, {"temperature": 1.0}),
    "a term's option": ({"loss": "combined"}, {"tuple-ratio.form": "right"}, {}),
    "the terms": ({"loss": "combined"}, {"terms": "tuple-triplet + tuple-ratio"}, {}),
    "what the run knows": ({"loss": "cross-entropy", "dim": 8}, {"dim": 8}, {}),
    "an option that may be nothing": ({"loss": "group"}, {"temperature": 1}, {"temperature": 1.0}),
    "a weight without a default": (
        {"loss": "pml:ContrastiveLoss"},
        {"embedding_reg_weight": 1},
        {"embedding_reg_weight": 1.0},
    ),
    "the order": ({"loss": "fisher-nca"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
}


@pytest.mark.parametrize("name", SAME)
def test_one_recipe_has_one_hash_however_its_loss_is_written(name):
    fields, one, other = SAME[name]
    assert Recipe(**fields, loss_options=one).hash == Recipe(**fields, loss_options=other).hash


def test_what_differs_has_another_hash():
    base = Recipe(loss="contrastive")
    others = [
        replace(base, loss_options={"margin": 2.0}),
        replace(base, loss_options={"margin": 2.0000001}),
        replace(base, loss="triplet"),
        replace(base, data="features:x.npz"),
        replace(base, data="features:y.npz"),
        replace(base, data="folder:x.npz"),
        replace(base, start="a/backbone.pt"),
        replace(base, start=base.hash),
        replace(base, backbone="lite0"),
        replace(base, backbone="lite0", backbone_options={"weights": "none"}),
        replace(base, backbone="lite0", backbone_options={"weights": "a.safetensors"}),
        replace(base, validate=True),
        replace(base, validate=True, trial=True),
        replace(base, size=32),
        replace(base, loss="pml:ContrastiveLoss"),
        replace(base, loss="pml:ContrastiveLoss", loss_options={"embedding_reg_weight": 1.0}),
    ]
    assert len({r.hash for r in (base, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data": "features:/home/me/x.npz"}, {"data": "features:x.npz"}),
        ({"data": "folder:a/birds"}, {"data": "folder:/data/birds/"}),
        ({"data": "folder:a/vögel"}, {"data": "folder:a/vo\u0308gel"}),
        ({"start": "/home/me/backbone.pt"}, {"start": "out/runs/0123456789ab/model"}),
        (
            {"backbone": "lite0", "backbone_options": {"weights": "/home/me/a.pth"}},
            {"backbone": "lite0", "backbone_options": {"weights": "b.safetensors"}},
        ),
        (
            {"backbone_options": {"filters": 32, "kernel": 5}},
            {"backbone_options": {"filters": "32"}},
        ),
        ({"backbone": "mlp", "backbone_options": {"hidden": 0}}, {"backbone": "mlp"}),
        ({"backbone": "lite0", "backbone_options": {"weights": "lite0"}}, {"backbone": "lite0"}),
        ({"data": "mnist-5k", "size": 28}, {}),
        ({"data": "cub", "size": 128}, {"data": "cub"}),
        ({"lr": 1}, {"lr": 1.0}),
    ],
)
def test_no_place_and_no_default_is_part_of_the_hash(one, other):
    assert Recipe(**one).hash == Recipe(**other).hash


def test_the_folder_one_stands_in_is_a_name_too(tmp_path, monkeypatch):
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path / "birds")
    assert Recipe(data="folder:.").hash == Recipe(data="folder:birds").hash


def test_no_file_is_looked_at(monkeypatch):
    for name in ("exists", "stat", "open", "resolve"):
        monkeypatch.setattr(Path, name, lambda *_, **__: pytest.fail("a file was looked at"))
    assert Recipe(data="features:/nowhere/x.npz", start="/nowhere/a.pt").hash


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(loss="no such loss", loss_options={"x": 1}),
        Recipe(loss="pml:NoSuchLoss", loss_options={"x": 1}),
        Recipe(loss="contrastive", loss_options={"margn": 1}),
        Recipe(loss="combined", loss_options={"terms": "nonsense * + triplet"}),
        Recipe(backbone="no such backbone", backbone_options={"x": 1}),
        Recipe(loss="contrastive", loss_options={"margin": 10**400}),
    ],
)
def test_what_no_run_would_take_has_a_hash_all_the_same(recipe):
    assert len(recipe.hash) == 12


def test_options_that_are_the_default_train_alike(tmp_path):
    """The claim behind the hash: an explicit default changes no weight."""
    for size in (0, SIDES["mnist-5k"]):
        x = batch(load("mnist-5k").train.inputs, torch.arange(4), augment="none", size=size)
        assert x.shape == (4, 1, 28, 28)
    assert SIDES["cub"] == PHOTOGRAPH_SIDE


def test_a_recipe_cannot_be_changed_and_can_be_hashed():
    recipe = Recipe(loss="contrastive", loss_options={"margin": 2.0})
    known = recipe.hash
    for change in (
        lambda o: o.update(margin=3.0),
        lambda o: o.pop("margin"),
        lambda o: o.__setitem__("margin", 3.0),
        lambda o: o.__delitem__("margin"),
        lambda o: o.__ior__({"margin": 3.0}),
        lambda o: o.setdefault("form", "x"),
        lambda o: o.clear(),
        lambda o: o.popitem(),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change(recipe.loss_options)
    assert recipe.hash == replace(recipe).hash == known
    mine = {"margin": 2.0}
    other = Recipe(loss="contrastive", loss_options=mine)
    mine["margin"] = 3.0
    assert other == recipe
    assert {recipe: 1}[other] == 1
    assert hash(Recipe(lr=1)) == hash(Recipe(lr=1.0))


def test_a_recipe_survives_every_copy():
    recipe = Recipe(
        loss="contrastive", loss_options={"margin": 2.0}, backbone_options={"kernel": 3}
    )
    for again in (
        copy.copy(recipe),
        copy.deepcopy(recipe),
        pickle.loads(pickle.dumps(recipe)),
        Recipe(**asdict(recipe)),
        Recipe(**json.loads(json.dumps(asdict(recipe)))),
    ):
        assert (again, again.hash) == (recipe, recipe.hash)
        with pytest.raises(TypeError):
            again.loss_options["margin"] = 3.0  # type: ignore[index]


def test_defaults_never_change_their_meaning():
    """A stored row is found by what differs from the defaults: another default, another meaning.

    Who needs another one gives the option a new name, or a new value that stands for it.
    """
    golden = json.loads((GOLDEN / "defaults.json").read_text())
    assert golden["recipe"].items() <= DEFAULTS.items()
    for kind, of in (("losses", losses.parameters), ("backbones", models.parameters)):
        for name, options in golden[kind].items():
            found = {n: p.default for n, p in of(name).items() if n in options}
            assert found == options, f"{name}: its defaults have changed"


PUBLISHED = sorted(path for path in RESULTS.glob("*.jsonl"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_published_row_has_the_hash_that_is_written_down_here(path):
    """No study need run again: what asks for a row today finds it."""
    golden = json.loads((GOLDEN / "hashes.json").read_text())
    stored = Store(RESULTS, path.name).stored()
    assert sorted(stored) == golden[path.stem]
    for row in stored.values():
        if isinstance(row, Row):
            assert row.recipe.hash == row.hash


def test_no_published_rows_are_missing():
    golden = json.loads((GOLDEN / "hashes.json").read_text())
    assert {path.stem for path in PUBLISHED} == set(golden)


def line_of(recipe: Recipe, hash: str, **more) -> dict:
    """A row of before, as it stands in a file."""
    fields = {k: v for k, v in asdict(recipe).items() if k != "trial"}
    metrics = {"last": {"epoch": 4, "recall@1": 0.5}}
    return {"hash": hash, "study": "", "recipe": fields, "metrics": metrics, **more}


def test_a_row_of_before_is_found_under_the_hash_of_today(tmp_path):
    recipe = Recipe(loss="contrastive", loss_options={"margin": 1})
    store = Store(tmp_path)
    store.file.write_text(json.dumps(line_of(recipe, "0123456789ab")) + "\n")
    (row,) = store.rows()
    assert row.hash == recipe.hash == Recipe(loss="contrastive").hash
    assert store.find(Recipe(loss="contrastive")) == row


def test_what_started_from_a_row_of_before_starts_from_it_still():
    old = line_of(Recipe(start="0123456789ab"), "ba9876543210")
    first = Recipe(loss="contrastive")
    row = migrated(old, {"0123456789ab": first.hash})
    assert row["recipe"]["start"] == first.hash
    assert row["hash"] == Recipe(start=first.hash).hash


def test_a_trial_of_before_is_a_trial():
    """A study's run on validation classes lacks what slow metrics say; a person's own has them."""
    recipe = Recipe(validate=True)
    of_a_study = migrated(line_of(recipe, "0123456789ab", study="toolkit"))
    assert of_a_study["recipe"]["trial"]
    assert of_a_study["hash"] == replace(recipe, trial=True).hash != recipe.hash
    assert migrated(line_of(recipe, "0123456789ab"))["hash"] == recipe.hash


@pytest.mark.parametrize(
    "row",
    [
        {"hash": "0123456789ab", "study": "x", "status": "done"},
        {"hash": "0123456789ab", "recipe": {"of tomorrow": 1}},
        {"hash": "0123456789ab", "recipe": {"dim": -1}},
        {"hash": "curve-0123456789ab", "recipe": {"dim": 8}},
    ],
)
def test_what_is_no_row_that_we_know_stays_as_it_is(row):
    assert migrated(row) == row


def test_a_row_of_today_stays_as_it_is():
    for recipe in (Recipe(), Recipe(validate=True, trial=True), Recipe(validate=True)):
        row = {**line_of(recipe, recipe.hash, study="toolkit"), "recipe": asdict(recipe)}
        assert migrated(row) == migrated(migrated(row)) == row


def test_a_trial_goes_with_validation():
    with pytest.raises(ValueError, match="trial goes with validate"):
        Recipe(trial=True)


def test_canonical_recipes_are_plain_data():
    recipe = Recipe(data="features:a/x.npz", loss="contrastive", loss_options={"margin": 2})
    assert json.loads(json.dumps(canonical(recipe))) == canonical(recipe)
