"""The command line as a process whose streams, folder or limits are not what they mostly are."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearkin.files import write_whole
from nearkin.runs import machine

NEARKIN = f"{sys.executable} -m nearkin"
TRAIN = f"{NEARKIN} train --data x.npz --dim 4 --epochs 1 --batch 8 --out out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("process")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("f4")
    np.savez(folder / "x.npz", x=x, y=np.repeat(np.arange(8), 4))
    return folder


def in_shell(folder: Path, line: str) -> tuple[int, str]:
    """What a line of bash leaves with, and what it says on stderr."""
    source = Path(__file__).parents[1] / "src"
    environ = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    asked = ["bash", "-c", line]
    done = subprocess.run(asked, cwd=folder, env=environ, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_what_is_written_to_closed_streams_goes_nowhere(folder, closed):
    assert in_shell(folder, f"{NEARKIN} evaluate --embeddings x.npz {closed}") == (0, "")
    assert in_shell(folder, f"{NEARKIN} evaluate --embeddings none.npz 2>&-") == (2, "")


def test_a_working_folder_that_is_gone_is_one_line(folder):
    act = f"mkdir -p gone && cd gone && rmdir ../gone && {NEARKIN} evaluate --embeddings ../x.npz"
    said = "nearkin: the working folder is gone: change to one that is there\n"
    assert in_shell(folder, act) == (2, said)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other systems hold otherwise")
def test_a_library_for_which_there_is_no_memory_is_one_line(folder):
    code, said = in_shell(folder, f"ulimit -v 900000; {NEARKIN} evaluate --embeddings x.npz")
    assert code == 2
    assert said.startswith("nearkin: out of memory or range: lib")
    assert said.count("\n") == 1


def test_a_file_that_tensorboard_cannot_write_is_one_line(folder):
    code, said = in_shell(folder, f"ulimit -f 1; {TRAIN}")
    assert code == 2
    last = said.splitlines()[-1]
    assert last.startswith("nearkin: [Errno 27] File too large")
    assert "Traceback" not in said


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="wanted a file, got a folder, pipe or device"):
        write_whole(tmp_path / "pipe", lambda file: file.write(b"x"))
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_the_commit_of_a_checkout_is_read_without_a_lock(tmp_path, monkeypatch):
    for name in ("src", "src/nearkin", "src/nearkin/runs"):
        (tmp_path / name).mkdir()
    for act in ("init -q", "add .", "-c user.name=a -c user.email=a@b.c commit -qm first"):
        (tmp_path / "a.txt").write_text("a")
        subprocess.run(["git", *act.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "src/nearkin/runs/machine.py"))
    index = tmp_path / ".git/index"
    os.utime(tmp_path / "a.txt", (1, 1))  # touched, and not changed: git would note it in its index
    before = index.read_bytes()
    clean = machine.revision.__wrapped__()
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    assert index.read_bytes() == before
    (tmp_path / "a.txt").write_text("b")
    assert machine.revision.__wrapped__() == f"{clean}-dirty"
