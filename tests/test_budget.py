"""Claim: nobody's network takes more memory than it may, whatever a recipe or a file asks for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nearkin as nk
from nearkin import budget
from nearkin.budget import Budget, TooLarge
from nearkin.models import folder, make


def test_what_is_made_is_counted_and_refused_before_it_is_there():
    with Budget(10_000, "it"):
        torch.nn.Linear(20, 20)
        with pytest.raises(TooLarge, match=r"^it would take 400,0.* MB of memory or more"):
            torch.zeros(10**6, 10**5)
    torch.zeros(10_000)  # beyond it there is no bound


def test_a_network_and_a_loss_beyond_the_machine_are_refused(monkeypatch):
    monkeypatch.setattr(budget, "free_memory", lambda: 10**6)
    make("mlp", {"hidden": 10}, (6,), 3)
    with pytest.raises(ValueError, match="backbone 'mlp' would take"):
        make("mlp", {"hidden": 10**5}, (6,), 3)
    with pytest.raises(ValueError, match="loss 'proxy-gml' would take"):
        nk.losses.make("proxy-gml", classes=10**4, dim=100)


def test_a_model_takes_no_more_than_its_weights_say(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "free_memory", lambda: 10**12)
    nk.Model(make("mlp", {"hidden": 4}, (6,), 3)).save(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    found = json.loads(config.read_text())
    block = found["nearkin"]
    del block["seal"]
    text = json.dumps(block["backbone"]).replace('"hidden": 4', '"hidden": 40000000')
    assert text != json.dumps(block["backbone"])
    block["backbone"] = json.loads(text)
    block["seal"] = folder.seal(block)
    config.write_text(json.dumps(found))
    with pytest.raises(
        ValueError, match=r"would take [\d,.]+ MB of memory or more, and may take 53"
    ):
        nk.Model.load(tmp_path / "model")


@pytest.mark.parametrize("shape", [[], [0], [-1], [[6]], ["6"], [10**6, 10**6], 6])
def test_an_item_of_an_odd_shape_is_refused(shape):
    assert not folder.is_shape(shape)


def test_a_page_is_not_written_through_a_link(tmp_path):
    """OUT/report/runs of a stranger's folder leads elsewhere; pictures would be removed there."""
    from fuzz import make_rows
    from nearkin.app.report import report

    rows = make_rows(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "figure-mine").write_text("precious")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "runs").symlink_to(victim)
    with pytest.raises(ValueError, match="wanted a folder for pictures, got a link"):
        report(rows.parent)
    assert [path.name for path in victim.iterdir()] == ["figure-mine"]


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path):
    """Pipes in an encoding of one byte a letter, and a file whose name is no text."""
    source = str(Path(nk.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONIOENCODING": "ascii"}
    call = [sys.executable, "-m", "nearkin", "evaluate", "--embeddings", os.fsdecode(b"\xff\xc3x")]
    done = subprocess.run(call, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(b"nearkin: ")
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1
