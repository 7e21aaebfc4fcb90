"""Every example runs as it stands (the network for fewer steps), and says what it promises."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["honest_comparison", "with_pytorch_metric_learning"])
def test_an_example_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "recall@1" in done.stdout


def test_the_network_learns():
    main = runpy.run_path(str(EXAMPLES / "network.py"))["main"]
    assert main(steps=20, batch=48)["recall@1"] > 0.2
