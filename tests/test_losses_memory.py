"""A memory of past batches adds references and nothing else: an empty one changes no number."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import LpDistance
from safetensors.torch import load_file, save_file

from batches import batch, gradient
from nearkin.losses import Contrastive, Memory, NPair, RatioTriplet, Triplet, make

OURS = [Contrastive(), RatioTriplet(), Triplet(0.5)]


@pytest.mark.parametrize("loss", OURS)
def test_an_empty_memory_changes_nothing(loss):
    x, y = batch([3, 3, 2])
    torch.testing.assert_close(Memory(loss, 10)(x, y), loss(x, y))
    torch.testing.assert_close(gradient(lambda x: Memory(loss, 10)(x, y), x), gradient(loss, x, y))


@pytest.mark.parametrize("loss", OURS)
def test_the_batch_meets_itself_and_the_memory(loss):
    """Equal to the loss of everything, asked for those pairs whose anchor is in the batch."""
    (old, old_y), (x, y) = batch([3, 2, 2]), batch([2, 1, 3], seed=1)
    memory = Memory(loss, 100)
    memory(old, old_y)
    everything, labels = torch.cat([x, old]), torch.cat([y, old_y])
    same = labels[: len(x), None] == labels[None]
    kin = same.clone()
    kin.fill_diagonal_(False)
    pairs = (*kin.nonzero().T, *(~same).nonzero().T)
    torch.testing.assert_close(memory(x, y), loss(everything, labels, pairs))


def test_the_metric_is_that_of_the_loss():
    assert Memory(Triplet()).metric == "euclidean"
    assert Memory(pml.ContrastiveLoss()).metric == "cosine"
    raw = LpDistance(normalize_embeddings=False)
    assert Memory(pml.ContrastiveLoss(distance=raw)).metric == "euclidean"


def test_rates_are_those_of_the_loss():
    loss: Any = make("pml:MarginLoss", {"learn_beta": True}, classes=4)
    assert [f"loss.{part}" for part in loss.rates()] == list(Memory(loss, 10).rates()) != []
    assert not Memory(Contrastive(), 10).rates()


def test_active_is_that_of_the_loss_on_the_batch_alone():
    (old, old_y), (x, y) = batch([3, 2, 2]), batch([3, 1, 3], seed=1)
    memory = Memory(Triplet(0.5), 100)
    memory(old, old_y)
    assert memory.active(x, y) == Triplet(0.5).active(x, y)
    assert 0 < memory.active(x, y) < 1
    assert memory.active(x[:1].repeat(len(x), 1), y) == 1
    assert not hasattr(Memory(pml.ContrastiveLoss()), "active")


def test_no_gradient_reaches_the_past():
    (old, old_y), (x, y) = batch([2, 2]), batch([2, 2], seed=1)
    memory = Memory(Contrastive(3.0), 100)
    old.requires_grad_()
    memory(old, old_y)
    x.requires_grad_()
    memory(x, y).backward()
    assert old.grad is None
    assert x.grad is not None


def test_the_oldest_are_forgotten():
    memory = Memory(Contrastive(), 5)
    for value in (1.0, 2.0, 3.0):
        memory(torch.full((2, 1), value), torch.tensor([0, 1]))
    assert memory.past.squeeze(1).tolist() == [3, 3, 2, 2, 1]
    assert memory.past_labels.tolist() == [0, 1, 0, 1, 0]
    memory(torch.full((9, 1), 4.0), torch.arange(9))
    assert memory.past.squeeze(1).tolist() == [4] * 5
    assert memory.past.untyped_storage().nbytes() == 5 * 4  # no more is kept alive


def test_a_checkpoint_holds_the_memory():
    (old, old_y), (x, y) = batch([2, 2]), batch([2, 2], seed=1)
    memory, resumed = Memory(Contrastive(), 6), Memory(Contrastive(), 6)
    resumed.load_state_dict(memory.state_dict())
    assert len(resumed.past) == 0
    memory(old, old_y)
    saved = deepcopy(memory.state_dict())
    resumed.load_state_dict(saved)
    assert resumed(x, y) == memory(x, y)
    resumed.load_state_dict(saved)  # over a memory of another length
    assert torch.equal(resumed.past, old)


def test_a_checkpoint_is_tensors_that_safetensors_writes(tmp_path):
    (old, old_y), (x, y) = batch([2, 2]), batch([2, 2], seed=1)
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        memory, resumed = Memory(Triplet(), 3), Memory(Triplet(), 3)
        save_file(memory.state_dict(), tmp_path / "empty")
        resumed.load_state_dict(load_file(tmp_path / "empty"))
        memory(old.to(kind), old_y)
        save_file(memory.state_dict(), tmp_path / "full")
        resumed.load_state_dict(load_file(tmp_path / "full"))
        assert resumed.past.dtype == kind
        assert resumed(x.to(kind), y) == memory(x.to(kind), y)


def test_a_model_that_holds_a_memory_is_saved_whole(tmp_path):
    (x, y), parts = batch([2, 2]), []
    for _ in range(2):
        parts.append(torch.nn.ModuleDict({"loss": Memory(Contrastive(), 8)}))
    parts[0]["loss"](x, y)
    torch.save(parts[0].state_dict(), tmp_path / "state.pt")
    parts[1].load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(parts[1]["loss"].past, x)


def test_it_learns_in_training_mode_only():
    (old, old_y), (x, y) = batch([2, 2]), batch([2, 2], seed=1)
    memory = Memory(Contrastive(), 8)
    memory(old, old_y)
    memory.eval()
    first = memory(x, y)
    assert torch.equal(memory.past, old)
    assert memory(x, y) == first
    assert first != Contrastive()(x, y)  # it still searches what it remembers
    memory.train()
    assert memory(x, y) == first
    assert torch.equal(memory.past, torch.cat([x, old]))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["contrastive", "triplet", "supcon", "pml:MultiSimilarityLoss"])
@pytest.mark.parametrize("autocast", [False, True])
def test_works_in_half_precision(kind, name, autocast):
    (old, old_y), (x, y) = batch([3, 2, 2]), batch([2, 1, 3], seed=1)
    low, full = Memory(make(name), 10), Memory(make(name), 10)
    for inputs, labels in ((old, old_y), (x, y)):
        with torch.autocast("cpu", kind, enabled=autocast):
            value = low(inputs.to(kind), labels)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full(inputs.to(kind).float(), labels))


def test_texts_are_remembered_as_classes():
    (old, old_y), (x, y) = batch([2, 2]), batch([3, 2], seed=1)
    numbers, texts = Memory(Contrastive(), 8), Memory(Contrastive(), 8)
    for inputs, labels in ((old, old_y), (x, y)):
        value = texts(inputs, [f"class {label}" for label in labels])
        assert value == numbers(inputs, labels)


def test_embeddings_of_another_size_and_references_are_refused():
    x, y = batch([2, 2])
    memory = Memory(Contrastive(), 8)
    memory(x, y)
    with pytest.raises(ValueError, match="holds embeddings of 3 dimensions, got 2"):
        memory(x[:, :2], y)
    with pytest.raises(ValueError, match="takes no references"):
        memory(x, y, None, x, y)


@pytest.mark.parametrize(
    "loss",
    [
        pml.ContrastiveLoss(),
        make("pml:ContrastiveLoss"),
        pml.MultiSimilarityLoss(),
        pml.TripletMarginLoss(distance=LpDistance(normalize_embeddings=False)),
    ],
)
def test_wraps_the_losses_of_pytorch_metric_learning(loss):
    (old, old_y), (x, y) = batch([3, 2, 2]), batch([2, 1, 3], seed=1)
    memory = Memory(loss, 100)
    torch.testing.assert_close(memory(old, old_y), loss(old, old_y))
    value = memory(x, y)
    assert value.isfinite()
    if isinstance(loss, pml.TripletMarginLoss):
        ours = Memory(Triplet(0.05), 100)
        ours(old, old_y)
        torch.testing.assert_close(value, ours(x, y), atol=1e-6, rtol=1e-6)


def test_losses_that_search_no_references_refuse_a_memory():
    refused = [NPair(), pml.ProxyAnchorLoss(4, 3), pml.NPairsLoss()]
    refused += [make(name, classes=4, dim=3) for name in ("proxy-anchor", "semi-hard-triplet")]
    for loss in refused:
        with pytest.raises(ValueError, match="no use for a memory"):
            Memory(loss)
    with pytest.raises(ValueError, match="got 0"):
        Memory(Contrastive(), 0)
    x, y = batch([2, 2])
    with pytest.raises(ValueError, match="takes no miner"):
        Memory(Contrastive())(x, y, (y, y, y))


def test_what_is_not_finite_is_not_remembered():
    x, y = torch.randn(6, 3), torch.arange(6) % 3
    sound, spoilt = Memory(Contrastive(), 8), Memory(Contrastive(), 8)
    bad = x.clone()
    bad[2] = torch.nan
    sound(x[[0, 1, 3, 4, 5]], y[[0, 1, 3, 4, 5]])
    assert spoilt(bad, y).isnan()
    assert torch.equal(spoilt(x, y), sound(x, y))
    with pytest.raises(ValueError, match=r"size must be a whole number, got 1\.5"):
        Memory(Contrastive(), 1.5)  # pyright: ignore[reportArgumentType]
