"""A study over machines: each run is done by one process, whoever is killed, with the same rows."""

import gc
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearkin.app.main import main
from nearkin.leases import Leases
from nearkin.runs import workers
from nearkin.runs.executors import Wanted, attempt, attempt_measure, complete, measured, workplace
from nearkin.runs.fleet import Fleet, Setting, Share, attempted
from nearkin.runs.fresh import fresh
from nearkin.runs.place import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, to_json
from nearkin.runs.store import Store
from nearkin.runs.workers import in_this_process, until_done

CPU = Place(device="cpu", threads=1)
SOURCE = str(Path(__file__).parents[1] / "src")


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    """A file of features: 12 classes of 8 points around a centre each, in 8 dimensions."""
    path, random = tmp_path_factory.mktemp("points") / "points.npz", np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    x = random.normal(size=(12, 8))[y] + 0.7 * random.normal(size=(96, 8))
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


def recipes(points: Path, seeds: int, **changes) -> list[Recipe]:
    options = {"backbone": "linear", "dim": 4, "loss": "triplet", "batch": 16, "epochs": 1}
    base = Recipe(data=f"features:{points}", **{**options, **changes})  # type: ignore[arg-type]
    return [replace(base, seed=seed) for seed in range(seeds)]


def numbers(rows) -> list[dict]:
    """The rows without what they cost, which differs from run to run."""
    found = []
    for row in rows:
        raw = to_json(row)
        del raw["cost"], raw["versions"], raw["machine"]
        raw["epochs"] = [{k: v for k, v in e.items() if k != "seconds"} for e in raw["epochs"]]
        found.append(raw)
    return found


@pytest.fixture(scope="module")
def alone(points, tmp_path_factory) -> list[Row]:
    """The rows of six runs by one process."""
    return complete(recipes(points, 6), tmp_path_factory.mktemp("alone"), place=CPU)


# ---- what is asked for


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"on": "slrum"}, "did you mean 'slurm'"),
        ({"on": "slurm:x"}, "only ray takes an address"),
        ({"on": "local", "options": {"cpus": 1}}, "local has no options"),
        ({"on": "ray", "options": {"gpu": 1}}, "did you mean 'gpus'"),
        ({"on": "ray", "options": {"gpus": "many"}}, "must be a number"),
        ({"on": "ray", "options": {"gpus": -1}}, "must be a number"),
        ({"on": "slurm", "options": {"cluster": "sge"}}, "cluster must be"),
        ({"jobs": 0}, "wanted 1 to 1024 jobs, got 0"),
    ],
)
def test_a_wrong_fleet_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Fleet(**words)


def test_threads_elsewhere_are_those_that_are_asked_for():
    """Not as many as the machine happens to have: they change the last bits."""
    assert workplace(Place(), Fleet()).threads == 0
    assert workplace(Place(), Fleet("ray", 1, {"cpus": 3})).threads == 3
    assert workplace(Place(), Fleet("ray", 1, {"cpus": 0.5})).threads == 1
    assert workplace(Place(), Fleet("slurm", 8, {"cpus_per_task": 4})).threads == 4
    assert workplace(Place(threads=2), Fleet("slurm", 8)).threads == 2


@pytest.mark.parametrize(("library", "extra"), [("submitit", "slurm"), ("ray", "ray")])
def test_a_missing_extra_is_one_line(library, extra, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, library, None)
    words = ["study", "toolkit", "--demo", "--on", extra, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    wanted = f"nearkin: wanted {library}: pip install 'nearkin[{extra}]'\n"
    assert capsys.readouterr().err == wanted
    assert not (tmp_path / "out").exists()


# ---- who does what


def test_what_others_are_at_is_left_to_them_and_looked_at_again():
    stored, taken, asked = set("x"), {"b"}, []

    def piece(name):
        def act():
            asked.append(name)
            if name in taken and name not in stored:
                return None
            return name.upper()

        return act

    def is_taken(name):
        if asked.count("b") and name == "b":
            stored.add("b")  # the other one is done
            return False
        return False

    work = {name: piece(name) for name in "abc"}
    found = until_done(work, in_this_process, is_taken)
    assert found == {"a": "A", "b": "B", "c": "C"}
    assert sorted(asked) == ["a", "b", "b", "c"]


def test_workers_that_die_without_a_result_are_not_started_for_ever():
    tries = []

    def dying(work, finish):
        tries.append(1)
        return {}

    with pytest.raises(OSError, match="killed three times over; not done: a"):
        until_done({"a": lambda: 1}, dying, lambda _: False)
    assert len(tries) == 3


def test_a_run_that_another_machine_is_at_is_waited_for(points, tmp_path, alone, monkeypatch):
    """Its lease is of another host; it dies without a word, and the run is taken over."""
    monkeypatch.setattr(workers, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("nearkin.runs.store.Leases", partial(Leases, stale=0.4))
    wanted = recipes(points, 3)
    folder = tmp_path / "runs" / wanted[0].hash
    folder.mkdir(parents=True)
    (folder / "lease.1").write_text("other-host 12 34 abc 0")
    began = time.monotonic()
    rows = complete(wanted, tmp_path, place=CPU)
    assert time.monotonic() - began >= 0.4
    assert numbers(rows) == numbers(alone[:3])
    lines = [
        json.loads(line)["hash"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()
    ]
    assert lines[-1] == wanted[0].hash  # the others were done meanwhile


def the_same_study(points: Path, seeds: int, out: Path) -> None:
    complete(recipes(points, seeds), out, place=CPU)


def started(act: Callable, *given: Any) -> Any:
    """A process that does this."""
    process = fresh().Process(target=act, args=given)
    process.start()
    return process


def test_two_processes_share_a_study_though_one_is_killed(points, tmp_path, alone):
    """`benchmarks/fleet.py` does it with 200 runs, 4 workers and 20 kills."""
    one, other = (started(the_same_study, points, 6, tmp_path) for _ in range(2))
    until = time.monotonic() + 120
    while not Store(tmp_path).rows() and time.monotonic() < until:
        time.sleep(0.02)
    one.kill()
    one.join()
    other.join(120)
    assert other.exitcode == 0
    rows = complete(recipes(points, 6), tmp_path, place=CPU)
    assert numbers(rows) == numbers(alone)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 6
    assert not list(Store(tmp_path).parts.glob("*.json"))


def measurement(place: Place) -> dict:
    return {"value": 1.5}


def test_a_measurement_is_made_by_one_process(tmp_path):
    store = Store(tmp_path)
    folder = store.parts / "a"
    folder.mkdir(parents=True)
    with store.claims(folder):
        assert attempt_measure(Wanted("a", measurement, ""), Store(tmp_path), CPU) is None
    (one,) = measured({"a": measurement}, tmp_path, study="s", place=CPU)
    assert one.values == {"value": 1.5}
    assert measured({"a": measurement}, tmp_path, study="s", place=CPU) == [one]


# ---- Slurm by submitit

slurm = pytest.mark.skipif(not find_spec("submitit"), reason="wants submitit")


@slurm
def test_submitit_gives_the_rows_of_one_process(points, tmp_path, alone):
    """By its own executor of local processes."""
    way = {"on": "slurm", "jobs": 1, "on_options": {"cluster": "local", "timeout_min": 5}}
    rows = complete(recipes(points, 6), tmp_path, place=CPU, **way)
    assert numbers(rows) == numbers(alone)
    assert len(list((tmp_path / "slurm").glob("*/*_result.pkl"))) == 1
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 6


def refusing(place: Place) -> dict:
    raise ValueError("a wrong option")


@slurm
def test_what_is_wrong_in_a_job_is_raised_here(tmp_path):
    way = {"on": "slurm", "on_options": {"cluster": "debug"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # submitit leaves its log files open
        with pytest.raises(ValueError, match="a wrong option"):
            measured({"a": refusing}, tmp_path, study="s", **way)
        gc.collect()
    assert attempted(Setting(), partial(refusing, CPU)).error.args == ("a wrong option",)


SBATCH = """#!/bin/bash
# a scheduler of one machine: each task of the array is started at once
cp "$1" "$HOME/sbatch.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
for i in $(seq 0 "${last:-0}"); do
  SLURM_ARRAY_JOB_ID=42 SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=$((42 + i)) SLURM_PROCID=0 \\
    bash "$1" > "$HOME/task-$i.log" 2>&1 &
done
echo "Submitted batch job 42"
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do
  if [[ "$1" == --unbuffered ]]; then shift; else shift 2; fi
done
exec "$@"
"""


@slurm
def test_the_batch_file_of_slurm_asks_for_what_was_chosen_and_does_the_runs(
    points, tmp_path, alone, monkeypatch
):
    """submitit's own Slurm executor, with the three programs of Slurm that it calls replaced by
    scripts that start its file here: no Slurm was there."""
    programs = {"sbatch": SBATCH, "srun": SRUN, "sacct": "#!/bin/bash\nexit 1\n"}
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"timeout_min": 90, "slurm_partition": "gpu", "gpus_per_node": 1, "cpus_per_task": 1}
    rows = complete(
        recipes(points, 2), tmp_path / "out", place=CPU, on="slurm", jobs=2, on_options=options
    )
    assert numbers(rows) == numbers(alone[:2])
    text = (tmp_path / "sbatch.sh").read_text()
    wanted = ["array=0-1%2", "cpus-per-task=1", "gpus-per-node=1", "job-name=nearkin"]
    wanted += ["partition=gpu", "signal=USR2@90", "time=90", "open-mode=append"]
    for flag in wanted:
        assert f"#SBATCH --{flag}\n" in text
    assert "srun --unbuffered" in text
    assert "submitit.core._submit" in text


@slurm
def test_a_job_whose_time_is_up_is_put_back_as_it_is():
    share = Share(Setting(), [("a", partial(measurement, CPU))])
    delayed = share.checkpoint()
    assert delayed.function is share
    assert (delayed.args, delayed.kwargs) == ((), {})
    assert share() == [("a", {"value": 1.5})]


def preempted(points: Path, out: Path) -> None:
    """A job of submitit that is told to make room once it has a checkpoint."""
    from submitit.core.utils import DelayedSubmission, JobPaths
    from submitit.local.local import LocalJobEnvironment

    (recipe,) = recipes(points, 1, epochs=4000)
    place = replace(CPU, save_seconds=0)
    share = Share(Setting(), [(0, partial(attempt, recipe, Store(out), place, "", None))])
    delayed = DelayedSubmission(share)
    delayed.set_timeout(60, 3)
    os.environ |= {"SUBMITIT_LOCAL_JOB_ID": "7", "SUBMITIT_EXECUTOR": "local"}
    LocalJobEnvironment()._handle_signals(JobPaths(out, "7", 0), delayed)

    def preempt() -> None:
        while not list(out.glob("runs/*/checkpoint.pt")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=preempt, daemon=True).start()
    delayed.result()


@slurm
def test_a_preempted_job_leaves_a_checkpoint_and_itself_in_the_queue(points, tmp_path):
    """The signal that Slurm sends before it takes the machine away, in submitit's own handler."""
    from submitit.core.utils import DelayedSubmission
    from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

    job = started(preempted, points, tmp_path)
    job.join(200)
    assert job.exitcode == LOCAL_REQUEUE_RETURN_CODE  # 0 where its study came to its end
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))
    requeued = DelayedSubmission.load(tmp_path / "7_submitted.pkl")
    assert isinstance(requeued.function, Share)
    _, piece = requeued.function.pieces[0]
    recipe, store = piece.args[0], piece.args[1]
    assert not store.taken(recipe.hash)  # its lease ended with it
