"""A row is of the data that it was made on: changed data are run anew, moved data are not."""

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nearkin import models
from nearkin.data import load
from nearkin.data.fingerprint import fingerprint
from nearkin.models.model import Model
from nearkin.runs import engine, ingredients
from nearkin.runs.checkpoint import save
from nearkin.runs.engine import Place, run
from nearkin.runs.executors import complete
from nearkin.runs.ingredients import find_row, loaded
from nearkin.runs.log import Silent
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.runs.store import Store

CPU = Place(device="cpu", threads=1)
CHANGED = "of other data than lie there now: 1; these are done anew"


def write(path: Path, seed: int = 0, noise: float = 0.7) -> Path:
    """12 classes of 8 points around a centre each, in 8 dimensions."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(12), 8)
    x = random.normal(size=(12, 8))[y] + noise * random.normal(size=(96, 8))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


def small(path: Path, **changes) -> Recipe:
    base = Recipe(data=f"features:{path}", backbone="linear", dim=4, loss="triplet", batch=16)
    return replace(base, **{"epochs": 1, **changes})


class Recorder(Silent):
    """A bar that keeps its lines."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_a_row_holds_the_fingerprint_of_its_data(tmp_path):
    path = write(tmp_path / "x.npz")
    row = run(small(path, keep_classes=0.5), tmp_path / "out", place=CPU).row
    assert row.data.fingerprint == fingerprint(load(f"features:{path}"))
    (line,) = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["fingerprint"] == row.data.fingerprint


def test_data_that_moved_or_were_copied_are_the_same_run(tmp_path):
    path = write(tmp_path / "a" / "x.npz")
    first = run(small(path), tmp_path / "out", place=CPU)
    (tmp_path / "b").mkdir()
    shutil.move(path, tmp_path / "b" / "x.npz")
    second = run(small(tmp_path / "b" / "x.npz"), tmp_path / "out", place=CPU)
    assert second.stored
    assert second.row == first.row


def test_changed_data_are_run_anew_and_said_so(tmp_path):
    path, out = write(tmp_path / "x.npz", 0), tmp_path / "out"
    first = run(small(path), out, place=CPU)
    kept = (first.folder / "embeddings.npz").read_bytes()
    write(path, 1)
    with pytest.warns(UserWarning, match=CHANGED):
        second = run(small(path), out, place=CPU)
    assert not second.stored
    assert second.row.metrics != first.row.metrics
    assert second.row.hash == first.row.hash
    assert second.row.key != first.row.key
    assert second.folder != first.folder
    assert (first.folder / "embeddings.npz").read_bytes() == kept
    fresh = run(small(path), tmp_path / "fresh", place=CPU)
    assert fresh.row.metrics == second.row.metrics
    assert Store(out).rows() == [first.row, second.row]

    write(path, 0)  # and back: the first row is of these again
    assert run(small(path), out, place=CPU).row == first.row
    assert run(small(path), out, place=CPU).folder == first.folder
    assert len(Store(out).rows()) == 2


def test_a_study_says_how_many_rows_are_of_other_data(tmp_path):
    path, out = write(tmp_path / "x.npz", 0), tmp_path / "out"
    recipes = [small(path, seed=seed) for seed in range(3)]
    complete(recipes[:2], out, place=CPU)
    write(path, 1)
    with pytest.warns(UserWarning, match="of other data than lie there now: 2") as said:
        rows = complete(recipes, out, place=CPU)
    assert len(said) == 1
    assert len({row.data.fingerprint for row in rows}) == 1
    assert complete(recipes, out, place=CPU) == rows
    assert len(Store(out).rows()) == 5


def test_two_files_of_one_name_share_no_row_and_no_folder(tmp_path):
    paths = [write(tmp_path / name / "x.npz", seed) for seed, name in enumerate("ab")]
    recipes, out = [small(path) for path in paths], tmp_path / "out"
    assert recipes[0].hash == recipes[1].hash
    for jobs in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in one process: the first is of other data
            rows = complete(recipes, out / str(jobs), jobs=jobs, place=CPU)
        assert [row.data.fingerprint for row in rows] == [
            fingerprint(load(f"features:{path}")) for path in paths
        ]
        folders = {row.files.folder for row in rows}
        assert len(folders) == 2
        for row, path in zip(rows, paths, strict=True):
            folder = out / str(jobs) / row.files.folder
            query = load(f"features:{path}").query.tensor
            with np.load(folder / "embeddings.npz") as kept:
                found = Model.load(folder).embed(query)
                torch.testing.assert_close(torch.from_numpy(kept["x"]), found)


@pytest.mark.parametrize("how", ["in the same process", "long ago"])
def test_a_file_that_was_written_anew_is_read_again(tmp_path, how, monkeypatch):
    path = write(tmp_path / "x.npz", 0)
    if how == "long ago":
        monkeypatch.setattr("nearkin.data.fingerprint.SETTLED", -(10**12))
    first = loaded(small(path), CPU)
    kept = loaded(small(path), CPU)
    assert (kept.splits is first.splits) == (how == "long ago")  # nothing has changed
    stat = path.stat()
    write(path, 1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert loaded(small(path), CPU).fingerprint != first.fingerprint


def test_what_is_kept_of_data_sets_does_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr("nearkin.data.fingerprint.SETTLED", -(10**12))
    for seed in range(5):
        loaded(small(write(tmp_path / f"{seed}.npz", seed)), CPU)
    assert len(ingredients.LOADED) <= ingredients.MOST_LOADED


def test_a_root_is_part_of_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("nearkin.data.fingerprint.SETTLED", -(10**12))
    for seed, name in enumerate("ab"):
        write(tmp_path / name / "x.npz", seed)
    both = []
    for name in "ab":
        monkeypatch.setenv("NEARKIN_DATA", str(tmp_path / name))
        both.append(loaded(small(Path("x.npz")), CPU).fingerprint)
    assert both[0] != both[1]


def test_a_row_of_before_is_taken_as_it_stands_and_that_is_said(tmp_path):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    row = run(small(path), tmp_path / "first", place=CPU).row
    Store(out).append(replace(row, data=replace(row.data, fingerprint="")))
    bar = Recorder()
    assert run(small(path), out, place=CPU, bar=bar).stored
    (line,) = bar.lines
    assert "without a fingerprint of their data, taken as they stand: 1" in line
    assert complete([small(path)], out, place=CPU, bar=bar)[0].metrics == row.metrics
    write(path, 1)
    assert run(small(path), out, place=CPU).stored  # nobody can tell


def test_a_row_of_before_from_another_start_is_none_of_this_run(tmp_path):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    for name, seed in (("a.pt", 1), ("b.pt", 2)):
        torch.manual_seed(seed)
        torch.save(models.describe(models.make("linear", {}, (8,), 4)), tmp_path / name)
    recipe = small(path, start=str(tmp_path / "a.pt"))
    row = run(recipe, tmp_path / "first", place=CPU).row
    before = replace(row, data=replace(row.data, fingerprint=""), made_of={})
    Store(out).append(before)
    assert run(recipe, out, place=CPU).stored
    assert not run(replace(recipe, start=str(tmp_path / "b.pt")), out, place=CPU).stored


def test_rows_whose_data_are_elsewhere_are_taken_and_that_is_said(tmp_path):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    first = run(small(path), out, place=CPU)
    path.unlink()
    bar = Recorder()
    assert run(small(path), out, place=CPU, bar=bar).row == first.row
    assert bar.lines == ["stored rows whose data are not here, so that nobody can compare them: 1"]
    with pytest.raises(ValueError, match="no such file"):
        run(small(path, seed=1), out, place=CPU)


def test_data_that_are_broken_now_are_not_data_that_are_elsewhere(tmp_path):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    run(small(path), out, place=CPU)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a whole npz file"):
        run(small(path), out, place=CPU)


@pytest.mark.parametrize("part", ["start", "weights"])
def test_a_file_of_weights_is_told_by_its_content(tmp_path, part):
    data, out = write(tmp_path / "x.npz"), tmp_path / "out"

    def recipe(path: Path) -> Recipe:
        if part == "start":
            return small(data, start=str(path))
        options = {"weights": str(path)}
        return replace(PICTURES, backbone_options=options)

    def learn(path: Path, seed: int) -> Path:
        torch.manual_seed(seed)
        if part == "start":
            net = models.make("linear", {}, (8,), 4)
            torch.save(models.describe(net), path)
        else:
            net = models.make("timm:test_resnet", {"weights": "none"}, (3, 28, 28), 4)
            torch.save(net.trunk.model.state_dict(), path)  # type: ignore[union-attr]
        return path

    (tmp_path / "elsewhere").mkdir()
    first = run(recipe(learn(tmp_path / "a.pt", 1)), out, place=CPU)
    assert set(first.row.made_of) == {part}
    moved = shutil.copy(tmp_path / "a.pt", tmp_path / "elsewhere" / "other.pt")
    assert run(recipe(Path(moved)), out, place=CPU).row == first.row
    learn(tmp_path / "a.pt", 2)
    with pytest.warns(UserWarning, match=CHANGED):
        second = run(recipe(tmp_path / "a.pt"), out, place=CPU)
    assert not second.stored
    assert second.row.made_of != first.row.made_of


PICTURES = Recipe(backbone="timm:test_resnet", dim=4, loss="cross-entropy", epochs=0)


def test_a_run_that_starts_from_another_is_of_the_data_of_both(tmp_path):
    source, target, out = write(tmp_path / "s.npz", 0), write(tmp_path / "t.npz", 1), tmp_path / "o"
    first = small(source, backbone="mlp")
    tuned = small(target, backbone="mlp", start=first.hash, seed=1)
    one = complete([first, tuned], out, place=CPU)
    assert one[1].made_of["start"] == one[0].key
    assert complete([first, tuned], out, place=CPU) == one
    write(source, 2)
    with pytest.warns(UserWarning, match="done anew"):
        two = complete([first, tuned], out, place=CPU)
    assert two[1].made_of["start"] == two[0].key != one[0].key
    assert two[1].metrics != one[1].metrics
    write(source, 0)
    assert complete([first, tuned], out, place=CPU) == one


def test_a_checkpoint_of_data_that_have_changed_is_begun_anew(tmp_path):
    path, out = write(tmp_path / "x.npz", 0), tmp_path / "out"
    recipe = small(path)
    current = Run(recipe, load(recipe.data), "cpu")
    next(train(current))
    folder = out / "runs" / recipe.hash
    save(current, folder / "checkpoint.pt")
    write(path, 1)
    with pytest.warns(UserWarning, match="checkpoint.pt was of other data than lie there now"):
        row = run(recipe, out, place=CPU).row
    assert row.metrics == run(recipe, tmp_path / "fresh", place=CPU).row.metrics


def test_what_is_found_is_what_a_run_would_be_named(tmp_path):
    path, store = write(tmp_path / "x.npz"), Store(tmp_path / "out")
    assert find_row(small(path), store, CPU).row is None
    row = run(small(path), store.folder, place=CPU).row
    assert find_row(small(path), store, CPU).row == row
    assert store.stored() == {row.key: row}


def test_a_stored_row_of_a_folder_that_is_read_only_is_returned(tmp_path, monkeypatch):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    first = run(small(path), out, place=CPU)
    (first.folder / "checkpoint.pt").write_bytes(b"left behind")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(engine.Store, "append", refuse)
    monkeypatch.setattr("nearkin.leases.Lease.take", refuse)
    assert run(small(path), out, place=CPU).row == first.row


def test_a_checkpoint_that_a_kill_left_beside_its_row_goes(tmp_path):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    first = run(small(path), out, place=CPU)
    for name in ("checkpoint.pt", ".checkpoint.pt.123"):
        (first.folder / name).write_bytes(b"left behind")
    before = sorted(p.name for p in first.folder.iterdir())
    assert run(small(path), out, place=CPU).stored
    after = sorted(p.name for p in first.folder.iterdir())
    assert set(before) - set(after) == {"checkpoint.pt", ".checkpoint.pt.123", "lease.1"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"schedule": "zzz"}, "unknown schedule 'zzz'"),
        ({"schedule": "zzz", "epochs": 0}, "unknown schedule 'zzz'"),
        ({"schedule": "zzz", "warmup": 10**6}, "unknown schedule 'zzz'"),
        ({"loss": "triplt"}, "did you mean 'triplet'"),
        ({"loss_options": {"margn": 1.0}}, "did you mean 'margin'"),
        ({"backbone": "linnear"}, "did you mean 'linear'"),
        ({"sampler": "clases"}, "did you mean 'classes'"),
        ({"metric": "cosin"}, "did you mean 'cosine'"),
        ({"refine": "galery"}, "did you mean 'gallery'"),
        ({"augment": "shft"}, "did you mean 'shift'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"start": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"per_class": 1, "batch": 4}, "wanted two images of a class"),
        ({"miner": "pml:AngularMiner", "loss": "n-pair"}, "NPair takes no miner"),
        ({"miner": "all", "loss": "cross-entropy"}, "CrossEntropy takes no miner"),
    ],
)
def test_a_run_that_is_refused_leaves_nothing(tmp_path, change, said):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    for act in (run, lambda recipe, out, place: complete([recipe], out, place=place)):
        with pytest.raises(ValueError, match=said) as error:
            act(small(path, **change), out, place=CPU)
        assert "\n" not in str(error.value)
        assert not out.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"loss_options": {"margn": 1.0}}, "did you mean 'margin'"),
        ({"schedule": "zzz"}, "unknown schedule"),
        ({"loss": "graph-refinement", "loss_options": {"layer": "gatt"}}, "did you mean 'gat'"),
        ({"loss": "graph-refinement", "loss_options": {"builder": "knnn"}}, "did you mean 'knn'"),
        ({"backbone": "mlp", "backbone_options": {"hiden": 3}}, "did you mean 'hidden'"),
        ({"memory": 8, "loss": "cross-entropy"}, "no use for a memory"),
        ({"miner": "pml:NoMiner"}, "NoMiner"),
    ],
)
def test_a_wrong_name_in_a_late_run_of_a_study_is_said_before_the_first(tmp_path, wrong, said):
    path, out = write(tmp_path / "x.npz"), tmp_path / "out"
    with pytest.raises(ValueError, match=said):
        complete([small(path), small(path, **wrong)], out, place=CPU)
    assert not out.exists()
