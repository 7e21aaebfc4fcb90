"""ProxyGML gives the numbers of its authors' released code: the loss and both gradients.

Every case of the stored files is checked, and of the folder NEARKIN_GOLDEN where that is set.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nearkin.losses import ProxyGML

FOLDERS = [Path(__file__).parent / "golden"]
FOLDERS += [Path(folder) for folder in [os.environ.get("NEARKIN_GOLDEN")] if folder]


def cases(path):
    """Name and arrays of each case of proxies in a file of `case/array` keys."""
    with np.load(path, allow_pickle=False) as file:
        for name in sorted({key.rpartition("/")[0] for key in file}):
            case = {key.rpartition("/")[2]: file[key] for key in file if key.startswith(f"{name}/")}
            if "proxies_per_class" in case:
                yield pytest.param(case, id=f"{path.parent.name}-{path.stem}-{name}")


CASES = [
    case for folder in FOLDERS for path in sorted(folder.glob("*.npz")) for case in cases(path)
]


def outcome(case, dtype):
    """Loss, and gradients of embeddings and proxies."""
    loss = ProxyGML(
        classes=int(case["n_classes"]),
        dim=case["proxies"].shape[1],
        proxies=int(case["proxies_per_class"]),
        ratio=float(case["r"]),
        weight=float(case["lam"]),
    ).to(dtype)
    loss.proxies.data = torch.from_numpy(case["proxies"]).to(dtype)
    embeddings = torch.from_numpy(case["embeddings"]).to(dtype).requires_grad_()
    value = loss(embeddings, torch.from_numpy(case["labels"]))
    gradients = torch.autograd.grad(value, (embeddings, loss.proxies))
    return value.item(), *(gradient.numpy() for gradient in gradients)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_the_released_code_agrees(case, dtype, tolerance):
    value, grad_embeddings, grad_proxies = outcome(case, dtype)
    x, expected = case["embeddings"], case["grad_embeddings"]
    expected = expected - (expected * x).sum(1, keepdims=True) * x  # ours normalises inside
    assert value == pytest.approx(float(case["loss"]), abs=tolerance)
    np.testing.assert_allclose(grad_embeddings, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(grad_proxies, case["grad_proxies"], rtol=0, atol=tolerance)


def test_there_are_cases():
    assert len(CASES) >= 3
