"""Every example runs as it stands (the network for fewer steps), and says what it promises."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nearkin as nk

EXAMPLES = Path(__file__).parents[1] / "examples"


def shorter(monkeypatch, **other: Any) -> None:
    """Have the recipes of examples ask for fewer epochs, steps or units."""
    whole = nk.Recipe
    monkeypatch.setattr(nk, "Recipe", lambda **given: whole(**(given | other)))


@pytest.fixture
def few(monkeypatch) -> None:
    """A fifth of the digits, of all classes, which come in turns."""
    whole = nk.load("mnist-5k")
    train = whole.train.select(torch.arange(len(whole.train) // 5))
    query = whole.query.select(torch.arange(len(whole.query) // 5))
    assert (query.labels.bincount() == len(query) // 10).all()
    splits = replace(whole, train=train, query=query, gallery=train)
    monkeypatch.setattr(nk, "load", lambda name: splits)


@pytest.mark.parametrize("name", ["honest_comparison", "with_pytorch_metric_learning"])
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    units = {"filters": "4,8", "units": "16"}
    shorter(monkeypatch, epochs=1, steps=2, backbone_options=units)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert "recall@1" in capsys.readouterr().out


@pytest.mark.usefixtures("few")
def test_the_readme_s_ten_lines_run(tmp_path, monkeypatch, capsys):
    code = (EXAMPLES.parent / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    shorter(monkeypatch, epochs=2, steps=4)
    names: dict = {}
    exec(code, names)
    assert names["found"].indices.shape == (200, 5)
    assert names["net"].connect(torch.zeros(3, 1, 28, 28)).shape == (3, 2)
    score, epoch = capsys.readouterr().out.split()
    assert 0 < float(score) <= 1 <= int(epoch) <= 2


def test_the_network_learns():
    main = runpy.run_path(str(EXAMPLES / "network.py"))["main"]
    assert main(steps=20, batch=48)["recall@1"] > 0.2


def test_own_objects_are_trained_and_saved(tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLES / "own_objects.py"))["main"]
    found = main(epochs=1, folder=str(tmp_path))
    assert found["recall@1"] > 0.8
    printed = capsys.readouterr().out
    assert printed.startswith("epoch 1: loss ")
    assert f"recall@1 {100 * found['recall@1']:.1f} %" in printed
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.usefixtures("few")
def test_short_embeddings_cost_what_their_example_says():
    found = runpy.run_path(str(EXAMPLES / "precision.py"))["main"](epochs=3)
    full = found["float32", 64]
    assert abs(found["float16", 64] - full) < 0.5
    assert abs(found["int8", 64] - full) < 1.5
    assert full - 12 < found["int8", 16] <= 100
    assert full - 25 < found["binary", 64] < full + 1
    assert found["binary", 4] < found["float32", 4]
