"""Claim: a command that was killed and is given again comes to what it would have come to; SIGTERM
ends it in a moment, with its run saved. A few kills of each here; `make campaign` has 100."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kills import ENVIRONMENT, JOBS, Server, finished, killed, points, rows
from nearkin import stopping


@pytest.fixture(scope="module")
def server():
    found = Server()
    yield found
    found.end()


@pytest.mark.parametrize(("name", "kills"), [("train", 2), ("embed", 2), ("index", 1)])
def test_a_killed_command_given_again_comes_to_its_end(server, name, kills, tmp_path):
    wrong = killed(server, JOBS[name], kills, 7, tmp_path)
    assert not wrong, "\n".join(wrong)


def test_a_run_that_is_told_to_end_saves_and_goes_on_bit_for_bit(server, tmp_path):
    import torch

    words = [word if word != "4" else "2000" for word in JOBS["train"].words]
    points(server, tmp_path)
    pid = server.begin([*words, "--steps", "400000"], tmp_path)  # 200 an epoch
    (state,) = wait_for(lambda: list(tmp_path.glob("o/runs/*/checkpoint.pt")))
    before = torch.load(state, weights_only=True)["step"]
    time.sleep(0.5)  # it is at a step of the next epoch then
    os.kill(pid, signal.SIGTERM)
    start = time.monotonic()
    assert server.code(pid, 30) == stopping.CODE
    assert time.monotonic() - start < 20  # one second where nobody else is at work
    assert torch.load(state, weights_only=True)["step"] > before
    # what it saved is a whole step: a short run that was ended so is the run without an end
    for folder in ("whole", "ended"):
        (tmp_path / folder).mkdir()
        points(server, tmp_path / folder)
    short = [word if word != "4" else "40" for word in JOBS["train"].words]
    finished(server, short, tmp_path / "whole")
    pid = server.begin(short, tmp_path / "ended")
    wait_for(lambda: list(tmp_path.glob("ended/o/runs/*/checkpoint.pt")))
    os.kill(pid, signal.SIGTERM)
    server.code(pid, 30)
    finished(server, short, tmp_path / "ended")
    assert json.dumps(rows(tmp_path / "ended")) == json.dumps(rows(tmp_path / "whole"))


def wait_for(look, seconds=60):
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


BUSY = """
import time
from nearkin import stopping
stopping.listen()
with stopping.saving():  # as a run does that is at work on something long
    print("ready", flush=True)
    time.sleep(60)
"""
IDLE = BUSY.replace("with stopping.saving():", "if True:")


@pytest.mark.parametrize("program", [BUSY, IDLE])
def test_whoever_does_not_end_in_time_is_ended(program):
    source = str(Path(stopping.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (stopping.CODE, -signal.SIGINT, 1)
        if program is BUSY:
            assert process.stderr.read().startswith("nearkin: stopped")
