"""`choose` ranks methods by validation alone, tells how sure it is, and `train --like` takes it."""

import json
from dataclasses import replace

import numpy as np
import pytest

import nearkin as nk
from nearkin.app.main import main
from nearkin.measure.statistics import Estimate
from nearkin.runs.engine import Place
from nearkin.runs.store import Store
from nearkin.studies import choice as module
from nearkin.studies.choice import choose
from nearkin.studies.chosen import Choice
from test_index import photograph

CPU = Place(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer methods and settings than a person gets, so that the tests are short."""
    monkeypatch.setattr(module, "CLOSED", {"within-class whitened": {"head_start": "whitened"}})
    monkeypatch.setattr(module, "CLOSED_SETTINGS", module.CLOSED_SETTINGS[:2])
    losses = {name: module.LOSSES[name] for name in ("proxy-anchor", "Fisher NCA")}
    monkeypatch.setattr(module, "LOSSES", losses)
    monkeypatch.setattr(module, "LOSS_SETTINGS", module.LOSS_SETTINGS[:2])


def features(path, classes: int = 48, each: int = 8, noise: float = 3.0, seed: int = 0) -> str:
    """Classes that differ in 4 of 20 directions; the others are loud and tell nothing."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = random.normal(size=(len(y), 20)) * np.r_[np.full(4, 0.4), np.full(16, noise)]
    x[:, :4] += random.normal(size=(classes, 4))[y] * 2
    np.savez(path, x=x.astype(np.float32), y=np.array([f"c{k:02d}" for k in y]))
    return f"features:{path}"


def last(found) -> Choice:
    *_, choice = found
    return choice


def test_it_finds_what_was_planted_and_is_sure(tmp_path):
    data = features(tmp_path / "x.npz")
    choice = last(choose(data, tmp_path / "out", dim=4, place=CPU))
    assert choice.method != "no training"
    assert choice.sure
    assert choice.difference.low > 0
    assert choice.test.mean > 1.5 * choice.untrained.mean
    assert [t.validation for t in choice.tried] == sorted(
        (t.validation for t in choice.tried), reverse=True
    )
    assert {t.method for t in choice.tried} == {"no training", *module.CLOSED, *module.LOSSES}
    assert Choice.read(tmp_path / "out" / "choice.json") == choice


def test_losses_start_from_the_closed_form_that_validation_chose(tmp_path, monkeypatch):
    """No loss is left behind by a start that another shrinkage or power would have mended."""
    settings = [{"head_power": 1.0, "head_shrinkage": s} for s in (1000.0, 0.3)]
    monkeypatch.setattr(module, "CLOSED_SETTINGS", settings)
    choice = last(choose(features(tmp_path / "x.npz"), tmp_path / "out", dim=4, place=CPU))
    trials = [row.recipe for row in Store(tmp_path / "out").rows() if row.recipe.trial]
    learnt = [recipe for recipe in trials if recipe.epochs]
    assert {(recipe.head_power, recipe.head_shrinkage) for recipe in learnt} == {(1.0, 0.3)}
    found = {each.method: each.validation for each in choice.tried}
    assert found["proxy-anchor"] > found["no training"]


def test_a_power_of_the_features_is_tried_and_is_not_taken_for_no_training(
    tmp_path, capsys, monkeypatch
):
    """Features whose cube roots tell the classes; cubed, a few large ones drown the others."""
    monkeypatch.chdir(tmp_path)
    power = {"power normalisation": {"backbone": "identity"}}
    monkeypatch.setattr(module, "CLOSED", power | module.CLOSED)
    monkeypatch.setattr(module, "CLOSED_SETTINGS", [{"head_power": 1.0, "head_shrinkage": 0.3}])
    monkeypatch.setattr(module, "LOSSES", {})
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(24), 8)
    x = (random.normal(size=(24, 30))[y] + 0.8 * random.normal(size=(len(y), 30))) ** 5
    np.savez("x.npz", x=x.astype(np.float32), y=np.array([f"c{k:02d}" for k in y]))
    main(["choose", "--data", "x.npz"])
    assert "chosen: power normalisation" in capsys.readouterr().out
    main(["train", "--data", "x.npz", "--like", "best", "--out", "mine"])
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert "power normalisation ends above no training" in said
    powers = sorted(row.recipe.head_power for row in Store(tmp_path / "mine").rows())
    assert len(powers) == 2
    assert powers[0] < powers[1] == 1


def test_the_test_part_chooses_nothing(tmp_path):
    """Other test classes leave the order and the recipe as they were."""
    data = features(tmp_path / "x.npz")
    one = last(choose(data, tmp_path / "one", dim=4, place=CPU))
    arrays = dict(np.load(tmp_path / "x.npz"))
    half = len(arrays["x"]) // 2
    arrays["x"][half:] = np.random.default_rng(1).normal(size=(half, 20))
    np.savez(tmp_path / "y.npz", **arrays)
    other = last(choose(f"features:{tmp_path / 'y.npz'}", tmp_path / "two", dim=4, place=CPU))
    assert other.recipe == one.recipe
    assert [replace(t, seconds=0) for t in other.tried] == [
        replace(t, seconds=0) for t in one.tried
    ]
    assert other.fingerprint != one.fingerprint
    assert not other.sure


def test_where_classes_are_shared_the_two_folds_are_of_other_images(tmp_path):
    """A quarter of each class's images, then another: not twice the same few."""
    features(tmp_path / "x.npz", classes=6, each=16)
    arrays = dict(np.load(tmp_path / "x.npz"))
    parts = np.where(np.arange(len(arrays["y"])) % 16 < 12, "train", "query")
    np.savez(tmp_path / "shared.npz", **arrays, split=parts)
    choice = last(choose(f"features:{tmp_path / 'shared.npz'}", tmp_path / "out", dim=4, place=CPU))
    assert choice.metric_name == "R@1 among training images"
    assert choice.test.mean > choice.untrained.mean
    trials = [row for row in Store(tmp_path / "out").rows() if row.recipe.trial]
    assert {row.recipe.validate_every for row in trials} == {4}
    plain = [row for row in trials if row.recipe.backbone == "identity"]
    first, other = ((row.epochs[-1].validation or {})["in_train.recall@1"] for row in plain)
    assert first != other


def test_what_leads_by_luck_is_not_chosen(tmp_path, monkeypatch):
    """Another method leads on validation, by less than its interval over classes: it is left."""
    monkeypatch.setattr(module, "gain_on_validation", lambda *_: Estimate(0.04, -0.01, 0.09, 24))
    data = features(tmp_path / "x.npz")
    choice = last(choose(data, tmp_path / "out", dim=4, place=CPU))
    assert choice.tried[0].method != choice.method == "no training"
    assert not choice.sure
    assert "was 4.0 points above no training (-1.0 to 9.0, 95 %, over 24 classes)" in choice.doubt
    assert choice.tried[0].method in choice.doubt


def test_the_gain_on_validation_knows_nothing_of_the_test_part(tmp_path, monkeypatch):
    data, found = features(tmp_path / "x.npz"), []
    measured = module.gain_on_validation

    def kept(*words):
        found.append(measured(*words))
        return found[-1]

    monkeypatch.setattr(module, "gain_on_validation", kept)
    last(choose(data, tmp_path / "one", dim=4, place=CPU))
    arrays = dict(np.load(tmp_path / "x.npz"))
    half = len(arrays["x"]) // 2
    arrays["x"][half:] = np.random.default_rng(1).normal(size=(half, 20))
    np.savez(tmp_path / "y.npz", **arrays)
    last(choose(f"features:{tmp_path / 'y.npz'}", tmp_path / "two", dim=4, place=CPU))
    assert found[0] == found[1]
    assert found[0].n == 24
    assert found[0].low > 0


def test_noise_gives_doubt(tmp_path):
    random = np.random.default_rng(0)
    y = np.array([f"c{k}" for k in np.repeat(np.arange(8), 6)])
    np.savez(tmp_path / "x.npz", x=random.normal(size=(48, 10)).astype(np.float32), y=y)
    choice = last(choose(f"features:{tmp_path / 'x.npz'}", tmp_path / "out", dim=4, place=CPU))
    assert not choice.sure
    assert choice.method == "no training"
    assert "which may be luck" in choice.doubt or "nothing was better" in choice.doubt


@pytest.mark.parametrize(("classes", "each"), [(2, 8), (6, 4)])
def test_too_few_classes_are_refused(tmp_path, classes, each):
    data = features(tmp_path / "x.npz", classes, each)  # of which half train
    with pytest.raises(ValueError, match="too few to choose by"):
        last(choose(data, tmp_path / "out", place=CPU))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def photos(tmp_path):
    """Photographs of 8 hues in folders, the folder of each its class."""
    for k in range(8):
        for i in range(6):
            colour = (30 * k, 255 - 30 * k, 128)
            photograph(tmp_path / "photos" / f"hue {k}" / f"{i}.png", colour, 10 * k + i)
    return tmp_path / "photos"


def test_the_way_from_photographs_to_a_model(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nk.Index, "write_light", lambda index: False)  # it takes seconds
    four = Estimate(0.2, 0.1, 0.3, 4)  # classes, too few for any method to be sure
    monkeypatch.setattr(module, "gain_on_validation", lambda *_: four)
    main(["choose", "--data", str(photos), "--size", "32", "--dim", "8", "--out", "chosen"])
    out = capsys.readouterr().out
    assert "chosen: " in out
    assert "no training" in out
    assert "R@1 on validation" in out
    last_line = out.strip().splitlines()[-1]
    assert last_line.endswith(f"nearkin train --data {photos} --like chosen/choice.json --out mine")
    words = ["--data", str(photos), "--like", "chosen/choice.json", "--out", "hues"]
    main(["train", *words])
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert "above no training: R@1 " in said
    assert " points (" in said
    assert list((tmp_path / "hues" / "report").glob("*.html"))
    model = nk.Model.load(said.split(": ")[0])
    assert model.embed([photos / "hue 1" / "0.png"]).shape == (1, 8)
    assert len(list((tmp_path / "chosen").glob("features-*.npz"))) == 1
    main(["index", "hues", str(photos), "--output", "shop"])  # OUT means the one that was trained
    assert nk.Index("shop").description.identity == model.identity
    main(["train", *words])  # again: nothing is run, and the same is said
    assert capsys.readouterr().out.strip().splitlines()[-1] == said

    photograph(photos / "hue 1" / "new.png", (30, 225, 128), 99)
    with pytest.raises(SystemExit) as left:
        main(["train", *words])
    assert left.value.code == 2
    assert "was chosen on other data" in capsys.readouterr().err


def test_best_is_looked_for_under_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = features(tmp_path / "x.npz")
    with pytest.raises(SystemExit):
        main(["train", "--data", data, "--like", "best"])
    assert "`nearkin choose` first" in capsys.readouterr().err
    main(["choose", "--data", data, "--dim", "4"])
    assert json.loads((tmp_path / "out" / "choice.json").read_text())["sure"] is True
    main(["train", "--data", data, "--like", "best", "--out", "mine", "--seed", "3"])
    assert " ends above no training" in capsys.readouterr().out


def test_no_training_that_was_chosen_is_one_row_and_a_sentence_of_its_own(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "LOSSES", {})
    monkeypatch.setattr(module, "gain_on_validation", lambda *_: Estimate(0.04, -0.01, 0.09, 24))
    data = features(tmp_path / "x.npz")
    main(["choose", "--data", data])
    capsys.readouterr()
    main(["train", "--data", data, "--like", "best", "--out", "mine"])
    said = capsys.readouterr().out
    assert "no training, as was chosen: the backbone as it is has R@1 " in said
    (row,) = Store(tmp_path / "mine").rows()
    assert not row.recipe.epochs


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "tried": 3}'])
def test_a_broken_choice_is_one_line(tmp_path, text):
    (tmp_path / "choice.json").write_text(text)
    with pytest.raises(ValueError, match=r"choice\.json"):
        Choice.read(tmp_path / "choice.json")
