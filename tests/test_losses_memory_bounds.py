"""No loss of the batch holds more than O(B^2) numbers: at B = 4,096 each takes less than 1 GB."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from batches import batch
from nearkin.losses import SpanningTree, make, triplets
from nearkin.runs.fresh import fresh

NAMES = ["contrastive", "ratio-triplet", "triplet", "lifted-structure", "n-pair"]
NAMES += ["tuple-triplet", "tuple-ratio", "combined", "fisher-nca"]


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // 8)
        return result


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_is_larger_than_all_pairs(name, monkeypatch):
    monkeypatch.setattr(triplets, "BLOCK", 1000)
    x, y = batch([30] * 10)
    with Largest() as largest:
        torch.autograd.grad(make(name)(x.requires_grad_(), y), x)
    assert largest.numbers <= len(x) ** 2


RIVALS = {"clustering": 1, "hdc": 3, "hierarchical-triplet": 1, "spanning-tree": 2, "hdml": 1}
"""How many numbers a pair of the batch may take: three slices of HDC, both ends of mined pairs."""


@pytest.mark.parametrize(("name", "numbers"), RIVALS.items())
def test_no_tensor_of_a_rival_is_larger_than_all_pairs_of_1024(name, numbers):
    """HDML's rows are N^2 = B^2 / 4, of as many numbers as its layers have units: here 4."""
    x, y = batch([256] * 4)
    x = x.float().requires_grad_()
    options: dict[str, Any] = {"hidden": 4} if name == "hdml" else {}
    mined = name == "spanning-tree"
    loss: Any = make("triplet" if mined else name, options, classes=4, dim=3, features=3)
    offered = {"features": x, "head": nn.Linear(3, 3)} if name == "hdml" else {}
    with Largest() as largest:
        pairs = SpanningTree()(x, y) if mined else None
        torch.autograd.grad(loss(x, y, pairs, **offered), x)
    assert largest.numbers <= numbers * len(x) ** 2


def peak() -> int:
    """Peak resident bytes of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def grow(sender) -> None:
    """By how much the peak has grown after value and gradient of each loss at B = 4,096."""
    torch.set_num_threads(1)
    x, y = torch.randn(4096, 64, requires_grad=True), torch.arange(4096) // 4
    before, grown = peak(), {}
    for name in NAMES:
        torch.autograd.grad(make(name)(x, y), x)
        grown[name] = peak() - before
    sender.send(grown)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_batch_of_4096_takes_less_than_1_gb():
    context = fresh()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=grow, args=(sender,))
    process.start()
    sender.close()  # so that a process that fails is an end of file, not a wait for ever
    grown = receiver.recv()
    process.join()
    assert max(grown.values()) < 1e9, grown
