"""Which images make up a batch: pure functions (labels, batch, per_class, seed, epoch) -> indices.

Each gives the whole epoch as one tensor (steps, batch) int64, so that a run which is resumed at a
step only has to look up that row. An epoch has as many steps as whole batches fit into the images,
and one at least.

Random numbers come from NumPy's default_rng([seed, epoch]), the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from nearkin.names import look_up, unknown
from nearkin.registry import SAMPLERS


def random(labels: Tensor, batch: int, per_class: int, seed: int, epoch: int) -> Tensor:
    """All images shuffled, each at most once an epoch; classes as they fall, per_class unused."""
    if len(labels) < batch:
        raise ValueError(f"a batch of {batch} wanted, of {len(labels)} images in all")
    steps = len(labels) // batch
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    return torch.from_numpy(order[: steps * batch]).view(steps, batch)


def classes(labels: Tensor, batch: int, per_class: int, seed: int, epoch: int) -> Tensor:
    """P classes x K images, K = per_class and P = batch / K; images of a class stand together.

    Every class is met equally often: after any number of epochs, no two classes differ by more
    than one group of K. A batch holds P different classes or, where there are fewer, each of them
    equally often but for one; a group holds K different images or, where there are fewer, all.
    """
    refuse_batch("classes", batch, per_class)
    members, sizes = images_by_class(labels, 1 if per_class == 1 else 2)
    slots, steps = batch // per_class, max(1, len(labels) // batch)
    order = class_stream(len(sizes), slots, steps, seed, epoch)
    rng = np.random.default_rng([seed, epoch, 1])
    return torch.from_numpy(draw(members, sizes, order, per_class, rng)).view(steps, batch)


def tuples(labels: Tensor, batch: int, per_class: int, seed: int, epoch: int) -> Tensor:
    """n different classes x 2 different images, at positions 2i and 2i + 1; per_class unused."""
    refuse_batch("tuples", batch, per_class)
    found = len(images_by_class(labels, 2)[1])
    if batch // 2 > found:
        raise ValueError(
            f"a batch of {batch} is a tuple of {batch // 2} classes x 2 images, "
            f"but there are {found} classes: wanted a batch of {2 * found} at most"
        )
    return classes(labels, batch, 2, seed, epoch)


def triplets(labels: Tensor, batch: int, per_class: int, seed: int, epoch: int) -> Tensor:
    """(anchor, positive, negative) at 3i, 3i + 1 and 3i + 2; per_class unused.

    Every class gives equally many anchors; the negative's class is any other, with equal chance.
    """
    refuse_batch("triplets", batch, per_class)
    members, sizes = images_by_class(labels, 2)
    steps = max(1, len(labels) // batch)
    order = class_stream(len(sizes), batch // 3, steps, seed, epoch)
    rng = np.random.default_rng([seed, epoch, 1])
    positives = draw(members, sizes, order, 2, rng).reshape(-1, 2)
    negatives = draw(members, sizes, others(order, len(sizes), rng), 1, rng)[:, None]
    return torch.from_numpy(np.hstack([positives, negatives])).view(steps, batch)


def pairs(labels: Tensor, batch: int, per_class: int, seed: int, epoch: int) -> Tensor:
    """Pairs at 2i and 2i + 1: the first half of them of one class, the other half of two classes.

    Every class comes first in equally many pairs of each kind; per_class unused.
    """
    refuse_batch("pairs", batch, per_class)
    members, sizes = images_by_class(labels, 2)
    steps = max(1, len(labels) // batch)
    order = class_stream(len(sizes), batch // 4, steps, seed, epoch)
    rng = np.random.default_rng([seed, epoch, 1])
    positives = draw(members, sizes, order, 2, rng).reshape(steps, -1)
    unlike = np.stack([order, others(order, len(sizes), rng)], 1).flatten()
    negatives = draw(members, sizes, unlike, 1, rng).reshape(steps, -1)
    return torch.from_numpy(np.hstack([positives, negatives]))


def structure(sampler: str, batch: int) -> tuple[Tensor, ...] | None:
    """What the positions of a batch mean to a loss, as pytorch-metric-learning's indices_tuple.

    (anchors, positives, negatives) of "triplets"; (a1, p, a2, n) of "pairs"; both ends of the edges
    of "streams", beside which all pairs of two classes count; otherwise nothing, and the loss takes
    every pair or triplet that the labels allow.

    >>> [positions.tolist() for positions in structure("pairs", 8)]
    [[0, 2], [1, 3], [4, 6], [5, 7]]
    """
    if sampler not in SAMPLERS:
        raise unknown(sampler, SAMPLERS, "sampler")
    positions = torch.arange(batch)
    if sampler == "triplets":
        return positions[0::3], positions[1::3], positions[2::3]
    if sampler == "streams":
        ends = positions[: batch // 2]
        return ends[0::2], ends[1::2]
    if sampler == "pairs":
        like, unlike = positions.chunk(2)
        return like[0::2], like[1::2], unlike[0::2], unlike[1::2]
    return None


GROUP = 4
"""Classes of a group of the sampler `neighbours`: one drawn at random, and the three nearest."""


def refuse_batch(sampler: str, batch: int, per_class: int) -> None:
    """Refuse a size of batches that a sampler cannot make of any images.

    >>> refuse_batch("triplets", 128, 4)
    Traceback (most recent call last):
    ValueError: a batch of triplets wanted a multiple of 3, got 128
    """
    if sampler == "classes" and batch % per_class:
        raise ValueError(f"batch must be a multiple of per_class, got {batch} and {per_class}")
    if sampler == "tuples" and batch % 2:
        raise ValueError(
            f"a batch of tuples holds pairs of images: wanted an even one, got {batch}"
        )
    if sampler == "triplets" and batch % 3:
        raise ValueError(f"a batch of triplets wanted a multiple of 3, got {batch}")
    if sampler == "pairs" and batch % 4:
        raise ValueError(f"a batch of balanced pairs wanted a multiple of 4, got {batch}")
    if sampler == "streams" and batch % 4:
        raise ValueError(f"a batch of streams wanted a multiple of 4, got {batch}")
    if sampler == "neighbours" and batch % (GROUP * per_class):
        raise ValueError(
            f"a batch of neighbours wanted a multiple of {GROUP} classes x {per_class} images, "
            f"got {batch}"
        )


class Batches(Sampler[list[int]]):
    """A sampler's epochs as a `batch_sampler` of torch's DataLoader.

    >>> batches = Batches(torch.tensor([0, 0, 1, 1]), 4, "classes", per_class=2)
    >>> batches.set_epoch(3)
    >>> [sorted(batch) for batch in batches]
    [[0, 1, 2, 3]]
    """

    def __init__(
        self,
        labels: Tensor,
        batch: int,
        sampler: str = "classes",
        per_class: int = 4,
        seed: int = 0,
        **known: Tensor,
    ):
        """known: near of the sampler `neighbours`, edges of `streams`; kept in `known`, which may
        be changed before `set_epoch`."""
        self.known = known
        self.labels, self.batch, self.per_class, self.seed = labels, batch, per_class, seed
        self.sampler = look_up(sampler, SAMPLERS, "sampler")
        self.set_epoch(0)

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """The epoch that the next passes go through, from this step on where one was broken off."""
        given = self.labels, self.batch, self.per_class, self.seed, epoch
        steps = self.sampler(*given, **self.known)
        if not 0 <= step <= len(steps):
            raise ValueError(f"an epoch has {len(steps)} steps: wanted one of them, got {step}")
        self.steps = steps[step:]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.steps.tolist())

    def __len__(self) -> int:
        return len(self.steps)


class OneImage(ValueError):
    """Classes of one image, where batches are made of pairs: the first one's label, how many."""

    def __init__(self, label: int, count: int, name: str = ""):
        super().__init__(label, count, name)  # what a worker's exception is made of again
        self.label, self.count, self.name = label, count, name

    def __str__(self) -> str:
        return (
            f"a pair wanted two images of each class, but class {self.name or self.label} has one "
            f"({self.count} such {'class' if self.count == 1 else 'classes'}): leave "
            f"{'it' if self.count == 1 else 'them'} out, or take sampler=random"
        )


def images_by_class(labels: Tensor, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the images, class by class, and how many each class has: `least` or more.

    Labels that do not occur are no classes. A class with fewer images is an error, unless such
    classes are fewer than one in a hundred (12 of In-Shop's 3,997): those give no batches.
    """
    members = torch.argsort(labels, stable=True).numpy()
    present, sizes = np.unique(labels.numpy(), return_counts=True)
    few = sizes < least
    if few.any() and 100 * few.sum() >= len(sizes):
        raise OneImage(int(present[few][0]), int(few.sum()))
    members, sizes = members[np.repeat(~few, sizes)], sizes[~few]
    if len(sizes) < 2:
        raise ValueError(f"batches by class wanted two classes or more, got {len(sizes)}")
    return members, sizes


def class_stream(count: int, slots: int, steps: int, seed: int, epoch: int) -> np.ndarray:
    """The class of each slot of an epoch (steps * slots,), different within a step if they suffice.

    Whole rounds of all classes, and what is left over goes round the classes from epoch to epoch,
    so that none falls behind.
    """
    whole, extra = divmod(steps * slots, count)
    circle = np.random.default_rng(seed).permutation(count)
    left_over = circle[(epoch * extra + np.arange(extra)) % count]
    rng = np.random.default_rng([seed, epoch])
    rounds = rng.permuted(np.tile(circle, (whole, 1)), axis=1).tolist()
    return np.array(grouped([rng.permutation(left_over).tolist(), *rounds], slots))


def draw(
    members: np.ndarray,
    sizes: np.ndarray,
    order: np.ndarray,
    per_class: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """per_class images for each class of the order, (len(order) * per_class,).

    No image of a class comes again before all of them came, and none twice in a slot as long as
    the class has per_class images.
    """
    slots = np.bincount(order, minlength=len(sizes))
    rounds = -(-slots * per_class // sizes)  # of all its images that a class needs
    # every round of every class, one after the other, each shuffled
    counts = np.repeat(sizes, rounds)
    first_member = np.repeat(sizes.cumsum() - sizes, rounds)
    shift = np.repeat(first_member - (counts.cumsum() - counts), counts)
    luck = rng.random(counts.sum())
    shuffle = np.lexsort((luck, np.repeat(np.arange(len(counts)), counts)))
    shuffled = members[(np.arange(len(shift)) + shift)[shuffle]].tolist()

    streams: list[int] = []  # class by class
    start = 0
    for size, count, wanted in zip(sizes.tolist(), rounds.tolist(), slots.tolist(), strict=True):
        ends = range(start, start + size * count, size)
        stream = grouped([shuffled[at : at + size] for at in ends], per_class)
        streams += stream[: wanted * per_class]
        start += size * count
    drawn = np.empty((len(order), per_class), dtype=np.int64)
    drawn[np.argsort(order, kind="stable")] = np.reshape(streams, (-1, per_class))
    return drawn.flatten()


def grouped(rounds: list[list[int]], size: int) -> list[int]:
    """The rounds joined into one stream that is read in groups of `size`.

    Where a group spans two rounds, the second is reordered, so that the group repeats an item only
    if it must.

    >>> grouped([[1, 2, 3], [3, 1, 2]], 2)
    [1, 2, 3, 1, 3, 2]
    >>> grouped([[1, 2, 3], [3, 1, 2]], 3)
    [1, 2, 3, 3, 1, 2]
    """
    stream: list[int] = []
    for order in rounds:
        begun = len(stream) % size
        if begun:
            held = Counter(stream[-begun:])
            head = sorted(order, key=held.__getitem__)[: size - begun]
            taken = set(head)
            order = head + [item for item in order if item not in taken]
        stream += order
    return stream


def others(order: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For each class of the order, one of the other count - 1 classes."""
    return (order + rng.integers(1, count, len(order))) % count
