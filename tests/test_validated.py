"""Claim: the epoch that validation chose is the Model, a run without patience stops early, and a
pretrained network is fine-tuned with sense where nobody says otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nearkin as nk
from nearkin.app.main import main
from nearkin.measure import recalls
from nearkin.runs import engine
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.runs.store import Store
from nearkin.runs.validated import VALIDATED

CPU = Place(device="cpu", threads=1)


@pytest.fixture
def features(tmp_path) -> str:
    """Forty classes of six vectors, of which a few coordinates tell the class."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 6)
    centres = random.normal(size=(40, 12))
    centres[:, 4:] = 0
    x = (centres[y] + random.normal(size=(240, 12)) * 0.6).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    return f"features:{tmp_path / 'x.npz'}"


def recipe(features: str, **changes) -> Recipe:
    base = Recipe(data=features, backbone="linear", dim=4, loss="contrastive", epochs=6, lr=0.05)
    return replace(base, batch=16, per_class=4, validate=True, **changes)


def validations(row: Row) -> list[float]:
    return [entry.validation["recall@1"] for entry in row.epochs if entry.validation]


def chosen_early(features: str, **changes) -> Recipe:
    """A recipe whose best epoch by validation is neither its first nor its last."""
    for seed in range(40):
        one = recipe(features, seed=seed, **changes)
        found = validations(run(one, place=CPU).row)
        if 0 < int(np.argmax(found)) < len(found) - 1:
            return one
    raise AssertionError("no seed will do")


def scores(model: nk.Model, features: str) -> float:
    query = nk.load(features).query
    return recalls(model.embed(query), query.labels, ks=[1], metric=model.metric)["recall@1"]


def test_the_model_is_of_the_epoch_that_validation_chose(features, tmp_path):
    one = chosen_early(features)
    found = run(one, tmp_path / "out", place=CPU)
    row = found.row
    assert row.metrics.validated
    assert row.metrics.last
    assert row.metrics.validated["epoch"] < row.metrics.last["epoch"]
    short = run(replace(one, epochs=6, validate=False), tmp_path / "other", place=CPU)
    assert short.row.metrics.last != row.metrics.last  # it trains on the other classes too
    assert scores(found.model, features) == pytest.approx(row.metrics.validated["recall@1"])
    stored = np.load(found.folder / "embeddings.npz")["x"]
    query = nk.load(features).query
    assert np.abs(stored - np.asarray(found.model.embed(query))).max() < 1e-6
    assert not (found.folder / VALIDATED).exists()


def test_a_row_is_what_it_was_before(features, tmp_path, monkeypatch):
    """Numbers, means by class and confusions are those of the last epoch."""
    one = chosen_early(features)
    row = run(one, tmp_path / "a", place=CPU).row
    monkeypatch.setattr(engine, "keep_if_best", lambda *_: None)
    monkeypatch.setattr(engine, "chosen_weights", lambda *_: None)
    before = run(one, tmp_path / "b", place=CPU).row
    for name in ("metrics", "by_class", "confusion"):
        assert getattr(row, name) == getattr(before, name)


def test_an_average_is_kept_as_it_is_evaluated(features, tmp_path):
    one = chosen_early(features, average=0.9)
    found = run(one, tmp_path / "out", place=CPU)
    assert found.row.metrics.validated
    wanted = found.row.metrics.validated["recall@1"]
    assert scores(found.model, features) == pytest.approx(wanted)


def test_a_killed_run_leaves_the_same_model(features, tmp_path, monkeypatch):
    one = chosen_early(features)
    whole = run(one, tmp_path / "whole", place=CPU)
    plain = engine.close_epoch
    ends = []

    def stop(current, *rest):
        ends.append(current.epoch)
        if len(ends) == 4:
            raise KeyboardInterrupt
        return plain(current, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "close_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(one, tmp_path / "killed", place=CPU)
    again = run(one, tmp_path / "killed", place=CPU)
    assert again.row.metrics == whole.row.metrics
    assert again.model.identity == whole.model.identity


def test_a_file_that_somebody_removed_is_one_line(features, tmp_path, monkeypatch):
    one = chosen_early(features)
    monkeypatch.setattr(engine, "keep_if_best", lambda *_: None)
    with pytest.raises(ValueError, match=r"validated\.safetensors is gone: remove"):
        run(one, tmp_path / "out", place=CPU)


@pytest.mark.parametrize("patience", [1, 2])
def test_a_run_stops_when_its_patience_is_spent(features, tmp_path, patience):
    one = replace(chosen_early(features), epochs=12)
    whole = run(one, tmp_path / "whole", place=CPU).row
    seen = validations(whole)
    best = wait = 0
    for i, value in enumerate(seen[1:], 1):  # the rule, epoch by epoch
        best, wait = (i, 0) if value > seen[best] else (best, wait + 1)
        if wait == patience:
            break
    row = run(replace(one, patience=patience), tmp_path / "short", place=CPU).row
    assert row.hash != whole.hash
    assert len(row.epochs) == i + 1 < 12
    assert row.metrics.validated
    assert row.metrics.validated["epoch"] == best + 1
    assert row.metrics.last
    assert whole.metrics.last
    assert row.metrics.last.keys() == whole.metrics.last.keys()
    assert validations(row) == seen[: i + 1]


def test_patience_wants_validation(features):
    with pytest.raises(ValueError, match="patience goes with validate"):
        Recipe(patience=2)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Twelve colours of six pictures each."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for kind in range(12):
        Path(f"photos/{kind:02d}").mkdir(parents=True)
        colour = random.integers(0, 256, 3)
        for i in range(6):
            noise = random.integers(-40, 41, (40, 48, 3))
            pixels = (colour + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(f"photos/{kind:02d}/{i}.png")
    return Path("photos")


TINY = ["--backbone", "timm:test_resnet", "--backbone-options", "weights=none", "--threads", "1"]


def trained(capsys, *words: str) -> tuple[Row, str]:
    main(["train", "--data", "photos", *TINY, *words])
    said = capsys.readouterr()
    hash = json.loads(said.out)["hash"]
    row = Store(Path("out")).row(hash) or next(r for r in Store("out").rows() if r.hash == hash)
    return row, said.err.splitlines()[-1]


def test_a_pretrained_network_is_fine_tuned_with_sense(photos, capsys):
    row, last = trained(capsys, "--epochs", "1", "--batch", "8", "--size", "32")
    found = row.recipe
    assert found.backbone_options == {"weights": "none", "batch_norm": "frozen"}
    assert (found.head_first, found.validate, found.patience) == (1, True, 3)
    assert (found.loss, found.lr, found.backbone_lr) == ("normalised-cross-entropy", 1e-3, 1e-4)
    assert (found.epochs, found.batch, found.size) == (1, 8, 32)  # as typed
    assert "no training (" in last
    assert any(word in last for word in ("below", "above", "no better than"))


def test_its_pictures_have_the_side_of_its_pretraining(photos, capsys):
    row, _ = trained(capsys, "--epochs", "0", "--no-validate")
    assert row.recipe.size == 160  # that of test_resnet
    assert row.recipe.head_first == 0


def test_what_is_typed_holds_even_where_it_is_the_default(photos, capsys):
    words = ["--epochs", "1", "--batch", "8", "--size", "32", "--head-first", "0"]
    words += ["--loss", "ratio-triplet", "--no-validate", "--dim", "64", "--lr", "0.001"]
    row, _ = trained(capsys, *words)
    found = row.recipe
    assert (found.head_first, found.loss, found.validate) == (0, "ratio-triplet", False)
    assert (found.patience, found.dim) == (0, 64)


def test_too_few_classes_do_not_validate(photos, capsys):
    for path in sorted(photos.iterdir())[6:]:
        path.rename(Path(f"gone-{path.name}"))
    row, _ = trained(capsys, "--epochs", "1", "--batch", "8", "--size", "32")
    assert (row.recipe.validate, row.recipe.patience) == (False, 0)


def test_a_recipe_from_a_file_is_taken_as_it_stands(photos, capsys):
    fields = {"backbone": "timm:test_resnet", "backbone_options": {"weights": "none"}}
    Path("r.json").write_text(json.dumps({**fields, "epochs": 0, "size": 32, "data": "photos"}))
    main(["train", "--recipe", "r.json", "--threads", "1"])
    row = next(r for r in Store("out").rows() if r.recipe.dim == 64)
    assert row.recipe.backbone_options == {"weights": "none"}


def test_what_a_kill_left_beside_a_stored_row_is_removed(features, tmp_path):
    one = recipe(features, seed=1)
    folder = run(one, tmp_path / "out", place=CPU).folder
    left = [folder / name for name in ("checkpoint.pt", VALIDATED, ".model.safetensors.17")]
    for path in left:
        path.write_bytes(b"of a process that is gone")
    assert run(one, tmp_path / "out", place=CPU).stored
    assert not [path for path in left if path.exists()]
    assert (folder / "model.safetensors").exists()
