"""Claim: every sampler gives the batches it promises, evenly, and the same when asked again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearkin.data.neighbours import neighbours
from nearkin.data.samplers import SAMPLERS, Batches, grouped, structure
from nearkin.names import resolve

BATCHES = {"random": 12, "classes": 12, "tuples": 6, "triplets": 12, "pairs": 12}
BATCHES |= {"neighbours": 12, "streams": 12}
LABELS = torch.tensor([0, 1, 2, 3, 4] * 7 + [0, 0, 3])


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_is_a_function_of_its_seed_and_number(name):
    def epoch(seed, number):
        return resolve(SAMPLERS[name])(LABELS, BATCHES[name], 3, seed, number)

    first = epoch(0, 0)
    assert first.shape == (len(LABELS) // BATCHES[name], BATCHES[name])
    assert first.dtype == torch.int64
    assert first.min() >= 0
    assert first.max() < len(LABELS)
    assert torch.equal(first, epoch(0, 0))
    assert not torch.equal(first, epoch(0, 1))
    assert not torch.equal(first, epoch(1, 0))


def test_random_takes_no_image_twice_in_an_epoch():
    steps = resolve(SAMPLERS["random"])(torch.zeros(50), 8, 1, 0, 0)
    assert steps.shape == (6, 8)
    assert len(set(steps.flatten().tolist())) == 48


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=2, max_size=12),
    p=st.integers(1, 8),
    k=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_classes_are_met_equally_often(sizes, p, k, seed):
    labels = torch.tensor([c for c, size in enumerate(sizes) for _ in range(size)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    met = torch.zeros(len(sizes))
    for epoch in range(3):
        steps = resolve(SAMPLERS["classes"])(labels, p * k, k, seed, epoch)
        groups = labels[steps].view(-1, p, k)
        assert (groups == groups[..., :1]).all()
        for row in groups[..., 0]:
            counts = torch.bincount(row, minlength=len(sizes))
            assert counts.max() - counts.min() <= 1
        for group, label in zip(steps.view(-1, k), groups.reshape(-1, k)[:, 0], strict=True):
            assert len(set(group.tolist())) == min(k, sizes[int(label)])
        met += torch.bincount(groups[..., 0].flatten(), minlength=len(sizes))
        assert met.max() - met.min() <= 1


def test_images_of_a_class_take_turns():
    labels = torch.arange(40) % 4
    steps = resolve(SAMPLERS["classes"])(labels, 8, 2, 5, 0)
    assert sorted(steps.flatten().tolist()) == list(range(40))


def test_tuples_hold_two_images_of_each_class():
    for row in resolve(SAMPLERS["tuples"])(LABELS, 10, 4, 0, 0):
        labels = LABELS[row].view(5, 2)
        assert torch.equal(labels[:, 0], labels[:, 1])
        assert sorted(labels[:, 0].tolist()) == [0, 1, 2, 3, 4]
        assert len(set(row.tolist())) == 10


def test_triplets_and_pairs_keep_their_positions():
    steps = resolve(SAMPLERS["triplets"])(LABELS, 12, 4, 0, 0)
    a, p, n = (LABELS[steps[:, i]] for i in structure("triplets", 12) or ())
    assert (a == p).all()
    assert (a != n).all()
    assert (steps[:, 0::3] != steps[:, 1::3]).all()

    steps = resolve(SAMPLERS["pairs"])(LABELS, 12, 4, 0, 0)
    a1, p, a2, n = (LABELS[steps[:, i]] for i in structure("pairs", 12) or ())
    assert a1.shape == a2.shape == (3, 3)
    assert (a1 == p).all()
    assert (a2 != n).all()
    assert (steps[:, 0:6:2] != steps[:, 1:6:2]).all()


@pytest.mark.parametrize("name", ["triplets", "pairs"])
def test_every_class_gives_equally_many_anchors(name):
    labels = torch.tensor([0] * 30 + [1] * 4 + [2] * 9 + [3] * 2)
    anchors: dict[int, torch.Tensor] = {}
    for epoch in range(3):
        steps = resolve(SAMPLERS[name])(labels, 12, 1, 7, epoch)
        positions = structure(name, 12) or ()
        for kind in (0,) if name == "triplets" else (0, 2):  # of the like pairs, of the unlike
            drawn = labels[steps[:, positions[kind]]].flatten().bincount(minlength=4)
            anchors[kind] = anchors.get(kind, 0) + drawn
            assert anchors[kind].max() - anchors[kind].min() <= 1


def test_negatives_come_from_every_other_class():
    labels = torch.arange(400) % 4
    counts = np.zeros((4, 4))
    for epoch in range(20):
        steps = resolve(SAMPLERS["triplets"])(labels, 12, 4, 0, epoch)
        np.add.at(counts, (labels[steps[:, 0::3]].flatten(), labels[steps[:, 2::3]].flatten()), 1)
    share = counts / counts.sum(1, keepdims=True)
    assert np.abs(share[~np.eye(4, dtype=bool)] - 1 / 3).max() < 0.06


def test_labels_need_not_be_consecutive():
    labels = torch.tensor([10, 70, 10, 70, 900, 900])
    steps = resolve(SAMPLERS["classes"])(labels, 4, 2, 0, 0)
    assert steps.shape == (1, 4)
    assert (labels[steps].view(-1, 2)[:, 0] == labels[steps].view(-1, 2)[:, 1]).all()


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_grouped_keeps_every_round_whole(items, rounds, size, seed):
    rng = np.random.default_rng(seed)
    order = [rng.permutation(items).tolist() for _ in range(rounds)]
    stream = grouped(order, size)
    for each in np.reshape(stream, (rounds, items)):
        assert sorted(each) == list(range(items))
    for at in range(0, len(stream), size):
        counts = np.bincount(stream[at : at + size], minlength=items)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("name", "batch", "labels", "said"),
    [
        ("random", 9, [0, 1], "batch of 9"),
        ("classes", 7, [0, 0, 1, 1], "multiple of per_class"),
        ("classes", 4, [0, 0, 1], "class 1 has one"),
        ("classes", 4, [0, 0, 0], "two classes"),
        ("tuples", 6, [0, 0, 1, 1], "wanted a batch of 4 at most"),
        ("tuples", 3, [0, 0, 1, 1], "even"),
        ("triplets", 4, [0, 0, 1, 1], "multiple of 3"),
        ("pairs", 6, [0, 0, 1, 1], "multiple of 4"),
        ("pairs", 4, [0, 0, 5], "class 5 has one"),
        ("neighbours", 12, [0, 0, 1, 1], "multiple of 4 classes x 2 images, got 12"),
        ("neighbours", 16, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "wanted a batch of 8 at most"),
        ("streams", 6, [0, 0, 1, 1], "multiple of 4, got 6"),
    ],
)
def test_what_cannot_be_drawn_is_said(name, batch, labels, said):
    with pytest.raises(ValueError, match=said):
        resolve(SAMPLERS[name])(torch.tensor(labels), batch, 2, 0, 0)


def test_neighbours_are_drawn_with_those_nearest_that_are_not_in_the_batch_yet():
    """Classes on a line, named 0, 10, 20, ...: near(c) are the numbers around c."""
    names = 10 * torch.arange(12)
    labels = names.repeat_interleave(3)
    near = torch.full((111, 5), -1)
    for c in range(12):
        order = sorted((abs(c - other), other) for other in range(12) if other != c)
        near[10 * c] = 10 * torch.tensor([other for _, other in order[:5]])
    anchors = torch.zeros(111)
    for epoch in range(6):
        for row in neighbours(labels, 16, 2, 3, epoch, near):
            groups = labels[row].view(2, 4, 2)
            assert torch.equal(groups[..., 0], groups[..., 1])
            assert len(set(row.tolist())) == 16
            groups = groups[..., 0].tolist()
            anchors[[groups[0][0], groups[1][0]]] += 1
            held = {groups[0][0], groups[1][0]}
            for anchor, *others in groups:
                free = [c for c in near[anchor].tolist() if c not in held][:3]
                assert others[: len(free)] == free
                held |= set(others)
            assert len(held) == 8
    drawn = anchors[names]
    assert drawn.max() - drawn.min() <= 1


def test_classes_of_which_nothing_is_known_are_drawn_at_random():
    labels = torch.arange(12).repeat(4)
    for near in (None, torch.full((12, 15), -1)):
        steps = neighbours(labels, 16, 2, 0, 0, near)
        assert steps.shape == (3, 16)
        for row in steps:
            assert labels[row].unique().numel() == 8


def test_a_few_lonely_images_among_many_classes_are_left_out():
    labels = torch.cat([torch.arange(150).repeat(2), torch.tensor([150])])
    steps = resolve(SAMPLERS["classes"])(labels, 20, 2, 0, 0)
    assert 150 not in labels[steps]
    with pytest.raises(ValueError, match="2 such classes"):
        resolve(SAMPLERS["classes"])(torch.cat([labels, torch.tensor([151])]), 20, 2, 0, 0)


def test_batches_in_a_data_loader():
    data = torch.utils.data.TensorDataset(torch.arange(len(LABELS)))
    batches = Batches(LABELS, 9, "classes", per_class=3, seed=4)
    batches.set_epoch(2)
    loader = torch.utils.data.DataLoader(data, batch_sampler=batches)
    seen = torch.stack([batch for (batch,) in loader])
    assert torch.equal(seen, resolve(SAMPLERS["classes"])(LABELS, 9, 3, 4, 2))
    assert len(loader) == 4
    batches.set_epoch(2, step=3)  # where a training was broken off
    assert torch.equal(torch.tensor(list(batches)), seen[3:])
    with pytest.raises(ValueError, match="did you mean 'classes'"):
        Batches(LABELS, 9, "clases")
