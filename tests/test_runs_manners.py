"""A run leaves the process as it found it, and tells under how many threads it was made."""

import json
import logging
import os
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn  # noqa: F401 - which sets two variables of the environment when it is first imported
import torch

from nearkin.data import load
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.embedding import load_and_embed
from nearkin.runs.engine import Place, run
from nearkin.runs.executors import complete, measured
from nearkin.runs.loop import train
from nearkin.runs.manners import torch_defaults
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

RECIPE = Recipe(backbone="linear", dim=4, loss="triplet", batch=16, epochs=1)


@pytest.fixture
def data(tmp_path) -> str:
    """12 classes of 8 points in 8 dimensions."""
    r = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    x = r.normal(size=(12, 8))[y] + 0.5 * r.normal(size=(96, 8))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32), y=y)
    return f"features:{tmp_path / 'x.npz'}"


def state() -> dict:
    """All that a run could leave changed in its process."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "levels": {n: logging.getLogger(n).level for n in ("", "lightning_fabric", "nearkin")},
        "format": warnings.formatwarning,
        "show": warnings.showwarning,
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask(),
    }


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def a_step_of_training(data, tmp_path):
    current = Run(replace(RECIPE, data=data, backbone="mlp"), load(data), "cpu")
    steps = train(current)
    next(steps)


def embedding(data, tmp_path):
    place = Place(device="cpu", threads=2)
    for _ in load_and_embed(data, tmp_path / "e.npz", None, "identity", {}, 0, place):
        assert torch.get_num_threads() == 1  # between two batches the process is the caller's


ACTS = {
    "run": lambda data, out: run(replace(RECIPE, data=data), out, place=Place(threads=2)),
    "bf16": lambda data, out: run(replace(RECIPE, data=data, precision="bf16"), out),
    "numpy's miner": lambda data, out: run(
        replace(RECIPE, data=data, loss="margin", epochs=2), out, place=Place(threads=2)
    ),
    "complete": lambda data, out: complete([replace(RECIPE, data=data)], out),
    "measured": lambda _, out: measured(
        {"a": lambda place: {"x": torch.rand(1).item()}}, out, study="s", place=Place(threads=2)
    ),
    "a step": a_step_of_training,
    "embed": embedding,
}


@pytest.mark.parametrize("act", ACTS)
def test_the_process_is_left_as_it_was_found(data, tmp_path, act):
    torch.set_num_threads(1)
    torch.manual_seed(7)
    before = state()
    ACTS[act](data, tmp_path / "out")
    after = state()
    assert {name for name in before if before[name] != after[name]} == set()


def test_a_run_that_fails_leaves_the_process_too(data, tmp_path):
    torch.manual_seed(7)
    before = state()
    with pytest.raises(ValueError, match="did you mean"):
        run(replace(RECIPE, data=data, loss="triplt"), tmp_path, place=Place(threads=2))
    assert state() == before


def test_half_precision_sees_each_step_of_the_weights():
    """An autocast context caches casts of weights until the outermost one ends: a whole run lay in
    one, and its forward passes in bf16 saw the weights of the first step for ever."""
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    with torch_defaults():
        found = []
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                found.append(layer(x).detach())
            with torch.no_grad():
                layer.weight += 1
    assert torch.allclose(found[1].float(), found[0].float() + 3, atol=0.1)


DRAWN = {"builder": "random", "like": "knn", "k": 4, "heads": 1}


@pytest.mark.parametrize(
    "changes",
    [{"loss": "margin"}, {"loss": "graph-refinement", "loss_options": DRAWN}],
)
def test_what_the_caller_draws_changes_no_run(data, tmp_path, changes):
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        recipe = replace(RECIPE, data=data, **changes)
        rows.append(run(recipe, tmp_path / str(seed), place=Place(threads=1)).row)
    assert rows[0].metrics == rows[1].metrics
    assert [e.monitor for e in rows[0].epochs] == [e.monitor for e in rows[1].epochs]


IMPORTED = """
import logging, os, subprocess, sys, warnings
def refuse(*_, **__):
    raise AssertionError("a process was started")
import torch, lightning_fabric  # what these start is theirs
subprocess.Popen.__init__ = refuse
level, shown = logging.getLogger("lightning_fabric").level, warnings.formatwarning
threads = torch.get_num_threads()
import ctypes
real = ctypes.CDLL
class Watched:
    def __init__(self, library):
        self.library = library
    def __getattr__(self, name):
        if name == "mallopt":
            print("mallopt")
        return getattr(self.library, name)
ctypes.CDLL = lambda *words, **named: Watched(real(*words, **named))
import nearkin as nk
from nearkin.runs import engine, executors, embedding, loop, machine
assert logging.getLogger("lightning_fabric").level == level
assert torch.get_num_threads() == threads
assert warnings.formatwarning is shown
machine.revision.cache_clear()
machine.revision = lambda: ""
nk.run(nk.Recipe(data=sys.argv[1], backbone="linear", dim=4, loss="triplet", batch=16, epochs=1),
       out=sys.argv[2])
print("done")
"""


def test_an_import_starts_nothing_and_a_run_tunes_no_memory(data, tmp_path):
    words = [sys.executable, "-c", IMPORTED, data, str(tmp_path / "out")]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.stdout.split() == ["done"], found.stderr


def test_a_row_tells_its_threads(data, tmp_path):
    for threads in (1, 2):
        out = tmp_path / str(threads)
        row = run(replace(RECIPE, data=data), out, place=Place(threads=threads)).row
        assert row.machine.threads == (threads,)
        (line,) = (out / "rows.jsonl").read_text().splitlines()
        assert json.loads(line)["machine"]["threads"] == [threads]


def stopped(data: str, path: Path, threads: int) -> Recipe:
    """A run that was left after a step, under this number of threads."""
    recipe = replace(RECIPE, data=data, epochs=2)
    torch.set_num_threads(threads)
    current = Run(recipe, load(data), "cpu")
    next(train(current))
    save(current, path)
    torch.set_num_threads(1)
    return recipe


def test_a_run_goes_on_under_its_own_number_of_threads(data, tmp_path):
    recipe = replace(RECIPE, data=data, epochs=2)
    stopped(data, tmp_path / "runs" / recipe.hash / "checkpoint.pt", 2)
    row = run(recipe, tmp_path, place=Place(device="cpu")).row
    assert row.machine.threads == (2,)


def test_a_run_that_goes_on_under_another_number_of_threads_says_so(data, tmp_path):
    recipe = replace(RECIPE, data=data, epochs=2)
    stopped(data, tmp_path / "runs" / recipe.hash / "checkpoint.pt", 2)
    with pytest.warns(UserWarning, match="left by 2 threads, and 1 go on"):
        row = run(recipe, tmp_path, place=Place(device="cpu", threads=1)).row
    assert row.machine.threads == (2, 1)


def test_every_number_of_threads_is_remembered(data, tmp_path):
    path = tmp_path / "c.pt"
    recipe = stopped(data, path, 2)
    for threads in (1, 1, 2):
        torch.set_num_threads(threads)
        current = Run(recipe, load(data), "cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            restore(current, path)
        next(train(current))
        save(current, path)
    torch.set_num_threads(1)
    assert torch.load(path, weights_only=True)["threads"] == [2, 1, 2]
