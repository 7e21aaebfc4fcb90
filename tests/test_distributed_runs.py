"""A run by several processes, from the command line and from Python: rows, ends, resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nearkin as nk
from nearkin.app.main import main
from nearkin.data.splits import Splits
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.engine import CHECKPOINT, Place, run
from nearkin.runs.loop import train
from nearkin.runs.ranks import ALONE, current
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.runs.store import Store
from processes import free_port, in_processes, points

WAIT = 600  # seconds in which a command must end, beside whatever else is at work


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """12 classes of 8 points in 8 dimensions."""
    r = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    x = r.normal(size=(12, 8))[y] + 0.5 * r.normal(size=(96, 8))
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return f"features:{path}"


def recipe_of(data: str, **changes: Any) -> Recipe:
    given = {"backbone": "mlp", "dim": 4, "loss": "proxy-anchor", "batch": 18, "per_class": 3}
    return Recipe(data=data, **{**given, "epochs": 4, "head_dropout": 0.2, **changes})


def words_of(recipe: Recipe, out: Path, *more: str) -> list[str]:
    (out.parent / f"{out.name}.json").write_text(json.dumps(recipe.changes()))
    start = [
        sys.executable,
        "-m",
        "nearkin",
        "train",
        "--recipe",
        str(out.parent / f"{out.name}.json"),
    ]
    return [*start, "--out", str(out), "--device", "cpu", "--threads", "1", *more]


def shown(row: Any) -> dict:
    """What a row says of numbers: nothing of time and place."""
    found = dict(row)
    epochs = [{k: v for k, v in e.items() if k != "seconds"} for e in found["epochs"]]
    return {**{k: found[k] for k in ("hash", "recipe", "metrics", "by_class")}, "epochs": epochs}


def close(one: Any, other: Any) -> bool:
    """Whether numbers are those of another run but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(close, one, other))
    return one == pytest.approx(other, rel=1e-4) if isinstance(one, float) else one == other


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> tuple[Recipe, Path, str]:
    """A run by two nodes of a process each, which meet as docs/distributed.md has it and nobody
    stops; and what they say."""
    recipe, out = (
        recipe_of(data, epochs=20, evaluate_every=10),
        tmp_path_factory.mktemp("w") / "out",
    )
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    start += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two-nodes"]
    start += ["--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--local-addr", "127.0.0.1"]
    words = start + words_of(recipe, out)[1:]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    nodes = [subprocess.Popen(words, **pipes) for _ in range(2)]
    told = [node.communicate(timeout=WAIT) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    return recipe, out, "".join(said for said, _ in told)


def row_of(out: Path, recipe: Recipe) -> Any:
    return Store(out).find(recipe)


def test_processes_make_the_row_of_one(whole, tmp_path):
    recipe, out, said = whole
    alone = run(recipe, tmp_path / "one", place=Place(device="cpu", threads=1)).row
    assert json.loads(said)["hash"] == alone.hash  # said once
    row = row_of(out, recipe)
    assert close(shown(row), shown(alone))
    first, second = row.machine.processes
    assert [first.rank, second.rank] == [0, 1]
    assert first.host == second.host == os.uname().nodename
    assert first.pid != second.pid
    steps = sum(epoch.steps for epoch in row.epochs)
    assert first.images + second.images == 18 * steps
    assert alone.machine.processes is None
    steps_written = (out / row.files.folder / "steps.csv").read_text().splitlines()
    assert len(steps_written) == len({line.split(",")[0] for line in steps_written}) > 1
    assert run(recipe, out, place=Place(device="cpu")).stored


def test_a_killed_rank_ends_all_in_one_line_and_the_run_goes_on_bit_for_bit(whole, tmp_path):
    """Processes that --devices starts come to the row of those that torchrun has started."""
    recipe, never, _ = whole
    words = words_of(recipe, tmp_path / "killed", "--devices", "2")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "killed" / "runs" / recipe.hash / CHECKPOINT
    wait_for(checkpoint.exists)
    victim = torch.load(checkpoint, weights_only=True)["processes"][1]["pid"]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    out, error = process.communicate(timeout=WAIT)
    assert time.monotonic() - began < 60
    assert process.returncode == 2
    (line,) = error.splitlines()
    assert line == (
        "nearkin: process 1 of 2 was ended by SIGKILL; the same command goes on from the last "
        "checkpoint"
    )
    assert not out
    assert row_of(tmp_path / "killed", recipe) is None
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    row = row_of(tmp_path / "killed", recipe)
    assert shown(row) == shown(row_of(never, recipe))
    assert len(row.machine.processes) == 4
    images = sum(process.images for process in row.machine.processes)
    assert images == 18 * sum(epoch.steps for epoch in row.epochs)


def wait_for(what, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def python_ways(data: str, folder: Path) -> dict[str, Any]:
    """What nk.run, nk.fit and checkpoints come to in a process group that somebody has made."""
    ranks, place = current(), Place(device="cpu", threads=1)
    found: dict[str, Any] = {}
    done = nk.run(recipe_of(data, epochs=1), folder / "out", place=place)
    found["row"], found["stored"] = shown(done.row), done.stored
    found["again"] = nk.run(recipe_of(data, epochs=1), folder / "out", place=place).stored
    splits, ends = points(), []

    class Ending:
        def on_epoch(self, end):
            ends.append((end.epoch, end.metrics["recall@1"]))
            return ranks.rank == 1 and end.epoch == 2  # in one process alone

    torch.manual_seed(ranks.rank)  # own objects that begin with other weights in each
    net, settings = nn.Linear(6, 4), {"batch": 15, "per_class": 3, "device": "cpu", "threads": 1}
    model = nk.fit(net, nk.losses.Triplet(), splits, epochs=5, callbacks=Ending(), **settings)
    found["ends"], found["weights"] = ends, model.backbone.weight.detach().tolist()
    kept = folder / "kept.pt"
    try:
        nk.fit(net, nk.losses.Triplet(), splits, epochs=1 + ranks.rank, resume=kept, **settings)
    except ValueError as error:
        found["refused"] = str(error)
    found["resumed"] = resumed(recipe_of("points", epochs=3, batch=15), splits, folder)
    return found


def resumed(recipe: Recipe, splits: Splits, folder: Path) -> dict[str, float]:
    """How far weights are from those of one process that was never stopped, where the processes
    that went on are not those that began."""
    whole = followed_to_the_end(Run(recipe, splits, "cpu"))
    found = {}
    for name, begins, goes_on in (("1 to 2", ALONE, current()), ("2 to 1", current(), ALONE)):
        first, second = (Run(recipe, splits, "cpu", ranks=ranks) for ranks in (begins, goes_on))
        for _ in zip(range(7), train(first), strict=False):
            pass
        path = folder / f"{name}.pt"
        if current().first:
            save(first, path)
        current().told("saved")
        restore(second, path)
        apart = followed_to_the_end(second) - whole
        found[name] = (apart.norm() / whole.norm()).item()
        known = [*second.processes_before, *second.processes]
        found[f"{name}, images"] = sum(process["images"] for process in known)
    return found


def followed_to_the_end(run: Run) -> torch.Tensor:
    for _ in train(run):
        pass
    return torch.cat([p.detach().flatten() for p in run.backbone.parameters()])


def test_python_in_a_process_group(data, tmp_path):
    first, second = in_processes(2, python_ways, tmp_path, data, tmp_path)
    assert first == second
    alone = nk.run(recipe_of(data, epochs=1), tmp_path / "alone", place=Place(device="cpu"))
    assert close(first["row"], shown(alone.row))
    assert not first["stored"]
    assert first["again"]
    assert [epoch for epoch, _ in first["ends"]] == [1, 2]
    assert "different settings" in first["refused"]
    assert not (tmp_path / "kept.pt").exists()
    for name in ("1 to 2", "2 to 1"):
        assert first["resumed"][name] < 1e-5
        assert first["resumed"][f"{name}, images"] == 15 * 3 * 5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--devices", "0"], "wanted 1 to 1024 devices, got 0"),
        (
            ["--devices", "2", "--batch", "1", "--per-class", "1"],
            "a batch of 1 cannot be cut",
        ),
        (["--devices", "2", "--loss-options", "margins=1"], "margins"),
    ],
)
def test_what_cannot_be_is_one_line_before_a_process_starts(data, tmp_path, capsys, more, said):
    start = ["--data", data, "--out", str(tmp_path / "out"), "--device", "cpu", "--backbone", "mlp"]
    with pytest.raises(SystemExit) as left:
        main(["train", *start, *more])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nearkin: ")
    assert said in line


def test_torchrun_with_another_command_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(SystemExit):
        main(["report"])
    assert "torchrun starts the processes of one `nearkin train`" in capsys.readouterr().err
