"""A run goes on bit for bit after a kill, and a row says what happened, whatever happened."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress, TextColumn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nearkin import models
from nearkin.data import load
from nearkin.measure import scattering
from nearkin.runs import build, engine, loop, machine
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.engine import Place, Result, run
from nearkin.runs.executors import Measurements, complete, measured, waves
from nearkin.runs.fresh import fresh
from nearkin.runs.log import Bar, Silent, StepLog, read_steps
from nearkin.runs.loop import Step, train
from nearkin.runs.machine import Peak, cores, keep_freed_memory
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Machine, Row
from nearkin.runs.run import Run
from nearkin.runs.store import Store

CPU = Place(device="cpu", threads=1)
COST = ("seconds", "train_seconds", "images_per_second", "peak_memory_mb")


@pytest.fixture(scope="session")
def features(tmp_path_factory) -> str:
    """20 classes of 12 points around a centre each, in 16 dimensions."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(20), 12)
    x = random.normal(size=(20, 16))[y] + 0.7 * random.normal(size=(240, 16))
    path = tmp_path_factory.mktemp("features") / "points.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return f"features:{path}"


def small(data: str, **changes) -> Recipe:
    """A run of a second: a linear head on features."""
    base = Recipe(data=data, backbone="linear", dim=8, loss="triplet", batch=20, per_class=4)
    return replace(base, epochs=3, **changes)


def without_cost(row: Row | Result) -> dict:
    """The row but for what time and memory have to do with, and for the commit that is at work."""
    found = {**row}
    del found["versions"]
    found["cost"] = {k: v for k, v in found["cost"].items() if k not in COST}
    for epoch in found["epochs"]:
        del epoch["seconds"]
    return found


def test_a_row_tells_the_whole_run(features, tmp_path):
    row = run(small(features), tmp_path, place=CPU)
    assert row["status"] == "done"
    assert row.row.recipe == small(features)
    assert [e["epoch"] for e in row["epochs"]] == [1, 2, 3]
    assert row["metrics"]["last"]["epoch"] == 3
    assert row["metrics"]["last"]["recall@1"] == row["epochs"][-1]["test"]["recall@1"]
    assert row["metrics"]["validated"] is None
    best = max(e["test"]["recall@1"] for e in row["epochs"])
    assert row["metrics"]["best_on_test"]["recall@1"] == best
    assert {"nmi", "ami", "map@r", "r_precision"} <= set(row["metrics"]["last"])
    assert row["cost"]["parameters"] == 16 * 8 + 8
    assert row["data"]["train_classes"] == 10
    folder = tmp_path / row["files"]["folder"]
    with np.load(folder / row["files"]["embeddings"]) as kept:
        assert kept["x"].shape == (120, 8)
        assert kept["y"].shape == (120,)
    steps = read_steps(folder / "steps.csv")
    assert [step["step"] for step in steps] == ["18"]  # 6 an epoch; the last is always watched
    assert not (folder / "checkpoint.pt").exists()


def test_the_log_tells_what_shows_a_collapse(features, tmp_path):
    """Loss, gradient norm, effective rank and active share, in steps.csv and in TensorBoard."""
    row = run(small(features), tmp_path, place=CPU)
    folder = tmp_path / row["files"]["folder"]
    (told,) = read_steps(folder / "steps.csv")

    run_again = Run(small(features), load(features), "cpu")
    steps = train(run_again)
    while run_again.step < run_again.total - 1:
        next(steps)
    backbone, loss = run_again.backbone, run_again.loss
    indices = run_again.next_batch()
    x = backbone(run_again.inputs[indices])
    value = loss(x, labels := run_again.labels[indices])
    gradients = torch.autograd.grad(value, list(backbone.parameters()))
    values = torch.linalg.svdvals(x.detach() - x.detach().mean(0))
    shares = values / values.sum()
    expected = {
        "loss": value.item(),
        "gradient_norm": torch.cat([g.flatten() for g in gradients]).norm().item(),
        "effective_rank": (-(shares * shares.log()).sum()).exp().item(),
        "active": loss.active(x, labels).item(),
        "learning_rate": small(features).lr,
    }
    assert {name: float(told[name]) for name in expected} == pytest.approx(expected, rel=1e-4)
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name, value in expected.items():
        (event,) = board.Scalars(f"train/{name}")
        assert (event.step, event.value) == (18, pytest.approx(value, rel=1e-4))
    assert [event.step for event in board.Scalars("test/recall@1")] == [6, 12, 18]


def test_an_epoch_s_loss_is_the_mean_of_its_steps(features, tmp_path, monkeypatch):
    values = []
    plain = loop.forward_backward

    def noted(run, inputs, labels):
        embeddings, value = plain(run, inputs, labels)
        values.append(value.item())
        return embeddings, value

    monkeypatch.setattr(loop, "forward_backward", noted)
    row = run(small(features), tmp_path, place=CPU)
    parts = [values[i : i + 6] for i in range(0, 18, 6)]  # 6 steps an epoch
    wanted = [sum(part) / 6 for part in parts]
    assert [entry["loss"] for entry in row["epochs"]] == pytest.approx(wanted, rel=1e-5)


def test_a_stored_row_is_not_run_again(features, tmp_path, monkeypatch):
    first = run(small(features), tmp_path, place=CPU)
    monkeypatch.setattr(engine, "carry_out", None)
    assert run(small(features), tmp_path, place=CPU) == first


def test_validation_holds_out_classes_and_chooses_by_them_alone(features, tmp_path):
    row = run(small(features, validate=True), tmp_path, place=CPU)
    assert row["data"]["train_classes"] == 8
    chosen = max(row["epochs"], key=lambda e: e["validation"]["recall@1"])
    assert row["metrics"]["validated"] == {"epoch": chosen["epoch"], **chosen["test"]}
    assert "nmi" in row["metrics"]["last"]
    assert (tmp_path / row["files"]["folder"] / "embeddings.npz").exists()


def test_a_trial_examines_validation_classes_alone(features, tmp_path):
    """Of test classes it knows nothing by which a setting could be chosen."""
    whole = run(small(features, validate=True), tmp_path, place=CPU)
    trial = run(small(features, validate=True, trial=True), tmp_path, place=CPU)
    assert set(trial["metrics"].values()) == {None}
    assert not any("test" in epoch for epoch in trial["epochs"])
    slow = {"nmi", "ami", "norm", *scattering(torch.randn(9, 4), torch.arange(9) // 3)}
    for one, other in zip(trial["epochs"], whole["epochs"], strict=True):
        assert one["validation"] == {k: v for k, v in other["validation"].items() if k not in slow}
    assert slow <= set(whole["epochs"][-1]["validation"])
    assert not (tmp_path / trial["files"]["folder"] / "embeddings.npz").exists()
    assert "embeddings" not in trial["files"]


def test_a_trial_does_not_search_for_garbage(features, tmp_path, monkeypatch):
    """It takes a quarter of a second, and only makes the memory exact, which no trial tells."""
    calls = []
    monkeypatch.setattr(machine.gc, "collect", lambda: calls.append(1))
    run(small(features, validate=True, trial=True), tmp_path, place=CPU)
    assert not calls
    run(small(features, validate=True), tmp_path, place=CPU)
    assert calls


def test_a_row_is_the_same_whoever_asks_for_it_first(features, tmp_path):
    recipe = small(features, validate=True)
    (of_a_study,) = complete([recipe], tmp_path / "one", study="any", place=CPU)
    direct = run(recipe, tmp_path / "two", place=CPU)
    assert without_cost(of_a_study) == {**without_cost(direct), "study": "any"}
    kept = [{p.name for p in tmp_path.glob(f"{out}/runs/*/*")} for out in ("one", "two")]
    assert kept[0] | {"doctor.json"} == kept[1]  # which watches single runs alone


def test_a_run_that_diverges_is_a_row_that_says_so(features, tmp_path):
    row = run(small(features, lr=1e30, optimizer="sgd", loss="contrastive"), tmp_path, place=CPU)
    assert row["status"] == "diverged"
    assert row["metrics"]["last"] is None
    assert Store(tmp_path).rows() == [row.row]


@pytest.mark.parametrize("lr", [1e17, 1e22, 1e38])  # finite, too long to be compared; and infinite
def test_embeddings_that_diverge_before_the_loss_does_are_a_row_too(features, tmp_path, lr):
    row = run(replace(small(features), lr=lr, steps=1, epochs=1), tmp_path, place=CPU)
    assert (row["status"], row["metrics"]["last"]) == ("diverged", None)
    assert Store(tmp_path).rows() == [row.row]


def test_a_run_that_diverges_in_the_middle_of_an_epoch_is_a_row_too(features, tmp_path):
    """At a step that is watched: the rank of what is not finite is not a number."""
    asked = small(features, lr=1e30, optimizer="sgd", loss="contrastive", steps=90)
    assert run(asked, tmp_path, place=CPU)["status"] == "diverged"


def test_what_a_checkpoint_has_is_logged(tmp_path):
    log = StepLog(tmp_path, 0)
    log.write(Step(20, 1, 400, {"loss": 0.5}), 10.0)
    log.flush()
    assert [s["step"] for s in read_steps(tmp_path / "steps.csv")] == ["20"]  # were it killed now
    log.close()


def test_a_row_without_some_pictures_is_none_of_a_run_that_wants_them_all(tmp_path):
    for kind in "abcd":
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / kind / f"{i}.png")
    whole = (tmp_path / "set" / "a" / "0.png").read_bytes()
    (tmp_path / "set" / "a" / "0.png").write_bytes(b"")
    recipe, out = Recipe(data=f"folder:{tmp_path / 'set'}", epochs=0), tmp_path / "out"
    with pytest.warns(UserWarning, match="left out: 1"):
        first = run(recipe, out, place=replace(CPU, skip_bad=True))
    with pytest.warns(UserWarning, match="left out: 1"):
        assert run(recipe, out, place=replace(CPU, skip_bad=True)).stored
    (tmp_path / "set" / "a" / "0.png").write_bytes(whole)
    with pytest.warns(UserWarning, match="of other data than lie there now: 1"):
        second = run(recipe, out, place=CPU)
    assert (first.row.data.left_out, second.row.data.left_out) == (1, 0)
    assert (first.row.data.query_images, second.row.data.query_images) == (6, 6)
    assert first.row.data.train_images + 1 == second.row.data.train_images

    old = Store(tmp_path / "before")  # a row that does not know its data
    old.append(replace(first.row, data=replace(first.row.data, fingerprint="")))
    for again in (run, lambda recipe, out, place: complete([recipe], out, place=place)):
        with pytest.raises(ValueError, match="made with --skip-bad"):
            again(recipe, tmp_path / "before", place=CPU)


def test_a_study_of_data_that_are_not_there_trains_nothing(features, tmp_path):
    with pytest.raises(ValueError, match="folder:nowhere: no such folder"):
        complete([small(features), small("folder:nowhere")], tmp_path, place=CPU)
    assert not list(tmp_path.iterdir())


def test_batches_without_kin_are_refused_where_a_loss_learns_from_kin_alone(features, tmp_path):
    with pytest.raises(ValueError, match="triplet wanted two images of a class in a batch"):
        run(small(features, per_class=1, batch=8), tmp_path, place=CPU)
    classifier = small(features, per_class=1, batch=8, loss="cross-entropy")
    assert run(classifier, tmp_path, place=CPU)["status"] == "done"


@pytest.mark.parametrize(
    ("refine", "loss", "said"),
    [("galery", "graph-refinement", "did you mean 'gallery'"), ("gallery", "triplet", "layers")],
)
def test_what_cannot_be_refined_is_refused_before_training(features, refine, loss, said):
    with pytest.raises(ValueError, match=said):
        Run(small(features, refine=refine, loss=loss), load(features), "cpu")


def test_refinement_at_test_time_stands_beside_the_backbone_alone(features, tmp_path):
    row = run(small(features, refine="reciprocal", loss="graph-refinement"), tmp_path, place=CPU)
    assert "reciprocal" in row["metrics"]["refined"]["graph"]
    assert 0 < row["metrics"]["refined"]["recall@1"] <= 1
    assert row["metrics"]["refined"]["recall@1"] != row["metrics"]["last"]["recall@1"]


def test_memory_is_what_a_run_adds_whatever_ran_before_it():
    def peak_of(numbers: int) -> int:
        peak = Peak(torch.device("cpu"))
        torch.ones(numbers)
        return peak.megabytes()

    keep_freed_memory()  # as every run does: what the first takes is there for the second
    large, small = peak_of(100_000_000), peak_of(20_000_000)
    assert 300 < large < 500
    assert 60 < small < 150


def test_a_stored_run_without_its_files_is_done_again_for_those_that_start_from_it(
    features, tmp_path
):
    first = small(features)
    (row,) = complete([first], tmp_path, place=CPU)
    shutil.rmtree(tmp_path / "runs")  # as where rows were published
    tuned = replace(first, start=first.hash, seed=1)
    rows = complete([first, tuned], tmp_path, place=CPU)
    assert rows[0] == row
    assert rows[1]["status"] == "done"
    assert len(Store(tmp_path).rows()) == 2


def test_what_starts_from_a_run_that_diverged_has_diverged(features, tmp_path):
    first = small(features, lr=1e30, optimizer="sgd", loss="contrastive")
    tuned, shot = (small(features, start=first.hash, seed=s) for s in (1, 2))
    rows = complete([first, tuned, replace(shot, epochs=0)], tmp_path, place=CPU)
    assert [row["status"] for row in rows] == ["diverged"] * 3


def test_no_epochs_examine_the_untrained_network(features, tmp_path):
    row = run(replace(small(features), epochs=0), tmp_path, place=CPU)
    assert row["metrics"]["last"]["epoch"] == 0
    assert len(row["epochs"]) == 1


def carried_out(recipe: Recipe, out: Path) -> None:
    """A run that is saved after every step, in a process that may be killed."""
    run(recipe, out, place=replace(CPU, save_seconds=0.0))


def test_a_run_killed_at_random_steps_ends_in_the_same_row(tmp_path):
    """Pictures, augmentation, Adam and a schedule, over the end of an epoch: bit for bit."""
    recipe = Recipe(loss="ratio-triplet", dim=2, epochs=2, steps=100, batch=100, per_class=10)
    units = {"filters": "4,8", "units": "16"}
    recipe = replace(recipe, augment="shift", schedule="cosine", warmup=3, backbone_options=units)
    whole = run(recipe, tmp_path / "whole", place=CPU)
    given = {"target": carried_out, "args": (recipe, tmp_path / "killed")}
    steps = tmp_path / "killed" / "runs" / recipe.hash / "checkpoint.pt"
    for _ in range(3):
        process = fresh().Process(**given)
        saved = changed_at(steps)
        process.start()
        while process.is_alive() and changed_at(steps) == saved:
            time.sleep(0.01)  # until it has got somewhere new
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it was not done
    last = fresh().Process(**given)
    last.start()
    last.join()
    assert last.exitcode == 0
    (row,) = Store(tmp_path / "killed").rows()
    assert without_cost(row) == without_cost(whole)
    with (
        np.load(tmp_path / "killed" / "runs" / recipe.hash / "embeddings.npz") as a,
        np.load(tmp_path / "whole" / "runs" / recipe.hash / "embeddings.npz") as b,
    ):
        assert (a["x"] == b["x"]).all()
    logged = read_steps(tmp_path / "killed" / "runs" / recipe.hash / "steps.csv")
    assert [s["step"] for s in logged] == ["20", "40", "60", "80", "100"]


RESUMED: dict[str, dict] = {
    "triplet": {},
    "sgd, clipped": {"loss": "contrastive", "optimizer": "sgd", "clip": 0.1},
    "rmsprop, bf16": {"loss": "n-pair", "optimizer": "rmsprop", "precision": "bf16"},
    "ProxyGML": {"loss": "proxy-gml", "loss_options": {"ratio": 0.5}},
    "group loss": {"loss": "group"},
    "graph refinement": {"loss": "graph-refinement"},
    "memory": {"loss": "triplet", "memory": 64},
    "miner": {"miner": "pml:TripletMarginMiner"},
    "tuples": {"loss": "n-pair", "sampler": "tuples"},
    "triplets": {"sampler": "triplets", "batch": 21},
    "pairs": {"loss": "contrastive", "sampler": "pairs"},
    "chunks": {"loss": "contrastive", "chunk": 7},
    "head first": {"backbone": "mlp", "head_first": 1},
    "frozen": {"backbone": "mlp", "freeze": True},
    "borrowed": {"loss": "margin"},
}


@pytest.mark.parametrize("name", RESUMED)
def test_whatever_is_trained_goes_on_bit_for_bit(features, tmp_path, name):
    recipe, splits = replace(small(features), **RESUMED[name]), load(features)
    whole, first, second = (Run(recipe, splits, "cpu") for _ in range(3))
    for _ in train(whole):
        pass
    steps = train(first)
    while first.step < 8:  # in the second epoch
        next(steps)
    save(first, tmp_path / "checkpoint.pt")
    restore(second, tmp_path / "checkpoint.pt")
    for _ in train(second):
        pass
    for part in ("backbone", "loss"):
        expected, found = (getattr(r, part).state_dict() for r in (whole, second))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_kill_soon_after_going_on_keeps_the_log(tmp_path):
    """What an earlier try wrote is never written again, so that it cannot be lost."""
    first = StepLog(tmp_path, 0)
    for step in (20, 40, 60, 80):
        first.write(Step(step, 1, step, {"loss": 0.5}), 1.0)
    first.close()
    second = StepLog(tmp_path, 60)
    second.write(Step(80, 1, 80, {"loss": 0.25}), 1.0)  # not flushed: a kill would lose it
    assert [step["step"] for step in read_steps(tmp_path / "steps.csv")] == ["20", "40", "60"]
    second.close()
    steps = read_steps(tmp_path / "steps.csv")
    assert [(s["step"], s["loss"]) for s in steps][-2:] == [("60", "0.5"), ("80", "0.25")]
    with open(tmp_path / "steps.csv", "a") as file:
        file.write("100,1,10")  # cut off
    StepLog(tmp_path, 100).close()
    assert read_steps(tmp_path / "steps.csv") == steps


def changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_a_checkpoint_of_another_recipe_is_refused(features, tmp_path):
    splits = load(features)
    save(Run(small(features), splits, "cpu"), tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="checkpoint of another recipe: it differs in lr"):
        restore(Run(small(features, lr=0.5), splits, "cpu"), tmp_path / "checkpoint.pt")


def test_a_checkpoint_of_other_data_is_refused(features, tmp_path):
    splits = load(features)
    save(Run(small(features), splits, "cpu"), tmp_path / "checkpoint.pt")
    restore(Run(small(features), load(features), "cpu"), tmp_path / "checkpoint.pt")
    train = splits.train
    for other in (
        replace(train, inputs=train.tensor + 1),
        replace(train, labels=train.labels.flip(0)),
        replace(train, classes=train.classes[::-1]),
        train.select(torch.arange(len(train) - 1)),
    ):
        changed = Run(small(features), replace(splits, train=other), "cpu")
        with pytest.raises(ValueError, match="made on other data"):
            restore(changed, tmp_path / "checkpoint.pt")


def test_what_nobody_can_be_found_for_is_refused_before_training(features):
    splits = load(features)
    _, first = np.unique(splits.query.labels.numpy(), return_index=True)
    alone = splits.query.select(torch.from_numpy(first))
    with pytest.raises(ValueError, match="no query has kin"):
        Run(small(features), replace(splits, query=alone, gallery=alone), "cpu")
    Run(small(features), replace(splits, query=alone), "cpu")  # each finds itself in the gallery


@pytest.mark.parametrize("content", [b"garbage", b"", b"hello world", b"junk", b"\x80\x04N."])
def test_a_broken_checkpoint_is_refused(features, tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match="broken, or not tensors"):
        restore(Run(small(features), load(features), "cpu"), tmp_path / "checkpoint.pt")


def test_a_checkpoint_that_was_cut_off_is_refused(features, tmp_path):
    torch.save({"recipe": {}, "x": torch.ones(1000)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="broken, or not tensors"):
            models.read(tmp_path / "cut.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, said in (("list.pt", "broken, or not"), ("whole.pt", "not the checkpoint of a run")):
        with pytest.raises(ValueError, match=said):
            restore(Run(small(features), load(features), "cpu"), tmp_path / name)


def test_a_start_of_another_size_is_refused_where_nothing_is_trained(features, tmp_path):
    run(small(features), tmp_path, place=CPU)
    (kept,) = tmp_path.glob("runs/*")
    with pytest.raises(ValueError, match="embeds into 8 dimensions"):
        run(replace(small(features), start=str(kept), dim=7, epochs=0), tmp_path, place=CPU)


def test_a_backbone_is_not_the_checkpoint_of_a_run(features, tmp_path):
    net = Run(small(features), load(features), "cpu").backbone.module
    torch.save(models.describe(net), tmp_path / "backbone.pt")
    with pytest.raises(ValueError, match="not the checkpoint of a run"):
        restore(Run(small(features), load(features), "cpu"), tmp_path / "backbone.pt")


def test_a_checkpoint_holds_tensors_and_plain_data_only(features, tmp_path):
    save(Run(small(features), load(features), "cpu"), tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)


def test_several_jobs_give_the_rows_of_one(features, tmp_path):
    recipes = [small(features, seed=seed) for seed in range(3)]
    alone = complete(recipes, tmp_path / "one", place=CPU)
    together = complete(recipes, tmp_path / "two", jobs=2, place=CPU)
    assert [without_cost(r) for r in together] == [without_cost(r) for r in alone]


def test_a_killed_worker_costs_no_run(features, tmp_path):
    recipes = [small(features, seed=seed, steps=400) for seed in range(2)]

    def kill_one() -> None:
        while not list(tmp_path.glob("runs/*/steps.csv")):
            time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    rows = complete(recipes, tmp_path, jobs=2, place=CPU)
    killer.join()
    assert [r["recipe"]["seed"] for r in rows] == [0, 1]


STUDY = """
import signal
from nearkin.app.main import main
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # off in what a shell put behind it
    main()
"""


def study_of_two_jobs(features, folder) -> subprocess.Popen:
    """A study whose workers have begun."""
    (folder / "study.py").write_text(STUDY)
    words = ["study", "graph-gain", "--data", features, "--seeds", "1", "--epochs", "8000"]
    words += ["--options", "tune=false", "--jobs", "2", "--out", str(folder)]
    started = subprocess.Popen(
        [sys.executable, folder / "study.py", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives
    )
    while not list(folder.glob("runs/*/lease.*")):
        time.sleep(0.05)
    return started


def test_workers_end_with_the_process_that_started_them(features, tmp_path):
    with study_of_two_jobs(features, tmp_path) as started:
        started.kill()
    deadline = time.monotonic() + 20
    while somebody_left(started.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not somebody_left(started.pid)


def somebody_left(group: int) -> bool:
    """Whether a process of this group is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_person_who_stops_several_jobs_is_told_so_in_one_line(features, tmp_path):
    started = study_of_two_jobs(features, tmp_path)
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate()
    assert started.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "nearkin: stopped; the same command goes on from here"
    assert Store(tmp_path).rows() == []  # it did not wait for what its workers had begun


def test_runs_come_after_the_run_they_start_from():
    first = Recipe()
    second = replace(first, data="omniglot", start=first.hash)
    third = replace(second, seed=1, start=second.hash)
    assert waves([third, second, first]) == [[first], [second], [third]]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_rates_start_whole_and_warm_up_linearly(schedule):
    recipe = Recipe(schedule=schedule, warmup=4)
    assert [build.rate_factor(recipe, s, 1000) for s in range(4)] == [0.25, 0.5, 0.75, 1]
    assert build.rate_factor(replace(recipe, warmup=0), 0, 100) == 1
    assert build.rate_factor(recipe, 999, 1000) <= 1


def test_step_schedule_falls_at_40_and_80_per_cent():
    recipe = Recipe(schedule="step")
    factors = [build.rate_factor(recipe, s, 50) for s in (0, 19, 20, 39, 40, 49)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_measurements_are_shared_among_processes_and_made_once(tmp_path):
    place_itself: Measurements = {"a": asdict, "b": asdict}  # what is measured is the place
    rows = measured(place_itself, tmp_path, study="places", jobs=2)
    assert [(row.hash, row.study) for row in rows] == [("a", "places"), ("b", "places")]
    assert {row.values["threads"] for row in rows} == {max(1, cores() // 2)}
    assert all((row.cost.seconds or 0) >= 0 and row.machine.gpu is None for row in rows)
    stored: Measurements = {"a": NotImplemented, "b": NotImplemented}
    assert measured(stored, tmp_path, study="places") == rows
    own = Machine(gpu="its own")
    named = measured({"c": lambda _: {"machine": own}}, tmp_path, study="places")
    assert named[0].machine == own  # where it was done, not where it was asked


def test_a_class_of_one_image_is_named(tmp_path):
    path = tmp_path / "lonely.npz"
    labels = np.array(["hen", "hen", "owl", "wren", "wren", "yak", "yak", "zebu"])
    np.savez(path, x=np.eye(8, dtype=np.float32), y=labels)
    recipe = replace(small(f"features:{path}"), batch=4, per_class=2)
    said = r"class 'owl' has one \(1 such class\)"
    with pytest.raises(ValueError, match=said):
        run(recipe, tmp_path, place=CPU)
    with pytest.raises(ValueError, match=said):  # from a worker too
        complete([recipe, replace(recipe, seed=1)], tmp_path, jobs=2, place=CPU)


def test_a_row_of_a_checkout_names_its_commit():
    root = Path(__file__).parents[1]
    words = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    commit = machine.revision()
    assert bool(commit) == (root / ".git").exists() == ("revision" in machine.versions())
    assert commit.removesuffix("-dirty")[:7] == head[:7]


def test_the_bar_counts_what_is_still_to_be_done(features, tmp_path):
    class Told(Silent):
        def __init__(self):
            self.wanted, self.lines = [], []

        def expect(self, runs):
            self.wanted.append(runs)

        def finish(self, line):
            self.lines.append(line)

    recipes = [small(features, seed=seed) for seed in range(3)]
    run(recipes[1], tmp_path, place=CPU)
    told = Told()
    complete(recipes, tmp_path, place=CPU, bar=told)
    assert (told.wanted, len(told.lines)) == ([2], 2)
    complete(recipes, tmp_path, place=CPU, bar=told)
    assert (told.wanted, len(told.lines)) == ([2, 0], 2)


def test_the_bar_on_a_terminal_ends_when_all_runs_are_done():
    with Progress(TextColumn("{task.fields[note]}"), disable=True) as progress:
        bar = Bar(progress)
        bar.expect(2)
        for done in (1, 2):
            bar.start("run", 10, 0)
            bar.advance(10, 0.5, 1.0)
            bar.finish("")
            (task,) = progress.tasks  # the run's own is gone
            assert (task.completed, task.total) == (done, 2)
