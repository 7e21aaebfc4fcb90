"""A study on a Ray cluster of two nodes, one of which is killed in the middle."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest

from nearkin.runs.executors import complete
from nearkin.runs.store import Store
from test_fleet import CPU, SOURCE, alone, numbers, points, recipes

pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="wants ray")
__all__ = ["alone", "points"]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
HEAD, SECOND = "127.0.0.2", "127.0.0.3"  # both on loopback; 127.0.0.1 Ray would not take
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
QUIET |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4"}
QUIET |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex}  # of this cluster alone


def node(folder: Path, host: str, *words: str) -> subprocess.Popen:
    """A node of a cluster on loopback, with room for one run, as a process group of its own."""
    environment = {**os.environ, **QUIET, "PYTHONPATH": f"{SOURCE}:{Path(__file__).parent}"}
    room = ["--node-ip-address", host, "--num-cpus", "1", "--num-gpus", "0", "--block"]
    room += ["--object-store-memory", "100000000", "--temp-dir", str(folder)]
    with open(folder / f"{host}.log", "w") as log:
        return subprocess.Popen(
            [*RAY, "start", *words, *room],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end(process: subprocess.Popen) -> None:
    """Kill a node with all its workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster, and its second node."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # sockets want a short path
    port = free_port()
    address = f"{HEAD}:{port}"
    nodes = [node(folder, HEAD, "--head", f"--port={port}", "--include-dashboard=false")]
    try:
        until = time.monotonic() + 120
        while not answers(port) and time.monotonic() < until:
            time.sleep(0.2)
        nodes.append(node(folder, SECOND, f"--address={address}"))
        yield address, nodes[1]
    finally:
        for one in reversed(nodes):
            end(one)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HEAD, 0))
        return one.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((HEAD, port)) == 0


STUDY = """
import sys, time
from pathlib import Path
import ray
from test_fleet import CPU, recipes
from nearkin.runs.executors import complete

address, points, out = sys.argv[1:]
ray.init(address=address, _node_ip_address=address.split(":")[0], log_to_driver=False)
until = time.monotonic() + 100
while ray.cluster_resources().get("CPU", 0) < 2 and time.monotonic() < until:
    time.sleep(0.2)
print(int(ray.cluster_resources()["CPU"]), flush=True)
way = {"on": f"ray:{address}", "jobs": 4, "on_options": {"cpus": 0.5, "retries": 3}}
rows = complete(recipes(Path(points), 8, epochs=60), out, place=CPU, **way)
print(len(rows), len({row.hash for row in rows}), flush=True)
"""


def test_a_node_that_is_killed_costs_time_alone(cluster, points, tmp_path):
    """Two nodes of one processor each, four runs at a time of half a processor; the second node is
    killed with all its workers once they are at work. Rows are those of one process."""
    address, second = cluster
    environment = {**os.environ, **QUIET, "PYTHONPATH": f"{SOURCE}:{Path(__file__).parent}"}
    words = [sys.executable, "-c", STUDY, address, str(points), str(tmp_path)]
    driver = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    try:
        first = driver.stdout.readline()
        assert first == "2\n", driver.communicate(timeout=60)[1]
        until = time.monotonic() + 100
        while len(held(tmp_path)) < 3 and not Store(tmp_path).rows() and time.monotonic() < until:
            time.sleep(0.02)
        end(second)
        out, error = driver.communicate(timeout=240)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, error
    assert "8 8" in out.splitlines()
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 8
    wanted = recipes(points, 8, epochs=60)
    alone = complete(wanted[:2], tmp_path / "alone", place=CPU)
    rows = {row.hash: row for row in Store(tmp_path).rows()}
    assert numbers([rows[one.hash] for one in wanted[:2]]) == numbers(alone)


def held(out: Path) -> list[Path]:
    """The leases of runs that are at work."""
    return [path for path in out.glob("runs/*/lease.*") if path.read_text() != "free"]
