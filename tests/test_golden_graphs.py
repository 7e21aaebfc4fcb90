"""The refiner gives the released network's numbers and gradients, in every case that is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nearkin.graphs import AttentionBlock, from_released

FOLDERS = [Path(__file__).parent / "golden", *filter(None, [os.environ.get("NEARKIN_GOLDEN")])]


def cases() -> list:
    found = []
    for path in (Path(folder) / "mpn.npz" for folder in FOLDERS):
        with np.load(path, allow_pickle=False) as arrays:
            names = sorted({name.split("/")[0] for name in arrays})
        found += [pytest.param(path, name, id=f"{path.parent.name}-{name}") for name in names]
    return found


def load(path: Path, case: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {n.removeprefix(f"{case}/"): arrays[n] for n in arrays if n.startswith(f"{case}/")}


@pytest.mark.parametrize(("path", "case"), cases())
def test_message_passing_network(path, case):
    arrays = load(path, case)
    refiner = from_released(arrays)
    x = torch.tensor(arrays["x"], requires_grad=True)
    refined = refiner(x)
    refined.square().sum().backward()
    for ours, theirs in ((refined, "refined"), (x.grad, "grad_x_of_sum_squares")):
        torch.testing.assert_close(ours, torch.tensor(arrays[theirs]), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("path", "case"), cases())
def test_in_single_precision(path, case):
    arrays = load(path, case)
    refined = from_released(arrays).float()(torch.tensor(arrays["x"]).float())
    torch.testing.assert_close(
        refined, torch.tensor(arrays["refined"]).float(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("path", "case"), cases())
def test_the_null_neighbour_is_what_makes_it_so(path, case):
    arrays = load(path, case)
    refiner = from_released(arrays)
    for layer in refiner.layers:
        assert isinstance(layer, AttentionBlock)
        layer.null_neighbour = False
    away = refiner(torch.tensor(arrays["x"])) - torch.tensor(arrays["refined"])
    assert away.abs().max() > 1e-4
