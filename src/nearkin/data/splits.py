"""What a data set is: three splits of inputs with labels, and the rules that they keep.

Dimensions: N items, C channels, H x W pixels, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nearkin.names import refuse_no_part
from nearkin.tensors import place_in_class

if TYPE_CHECKING:
    from nearkin.data.photographs import Photographs


@dataclass(frozen=True)
class Split:
    """Inputs that belong together, with their classes.

    inputs: (N, C, H, W) uint8 pictures, (N, D) float32 features (or floats of any shape that a
        backbone takes as they are), `Photographs` of many sizes, or the `Items` of a Dataset.
    labels: (N,) int64 in 0..len(classes)-1.
    classes: the name of each class.
    names: the name of each item (its file, as a rule), or nothing.
    """

    inputs: Tensor | Photographs  # or Items, which few places look into
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def tensor(self) -> Tensor:
        """The inputs where they are one tensor; photographs of many sizes are refused."""
        if not isinstance(self.inputs, Tensor):
            raise ValueError(f"wanted inputs of one size, got {len(self)} photographs of many")
        return self.inputs

    def select(self, indices: Tensor) -> Split:
        """The items at these indices; labels and classes as they were."""
        names = tuple(self.names[i] for i in indices.tolist()) if self.names else ()
        return replace(self, inputs=self.inputs[indices], labels=self.labels[indices], names=names)


@dataclass(frozen=True)
class Splits:
    """A data set: what to train on, what asks, and what is searched.

    gallery is the same object as query where each item is searched among all the others.
    variant says what the pictures are ("full frames, short side 128 px"): it stands beside results.
    shared_classes: training has every class of the test set (MNIST).
    mixed_classes: some test classes are those of training, and others new: both are reported apart.
    Otherwise no class of query or gallery may stand in train.
    showable: pictures may be copied into results and shown there.
    unused: what stands beside the data and is not used, a line each.
    halved: the first half of the classes trains and the rest tests, as nothing says which are to.
    inverted: black and white are exchanged beside what the files show.
    made_by: the origin of features (nearkin.models.origin), where their file tells it.
    """

    name: str
    train: Split
    query: Split
    gallery: Split
    variant: str = ""
    shared_classes: bool = False
    mixed_classes: bool = False
    showable: bool = False
    unused: tuple[str, ...] = ()
    halved: bool = False
    inverted: bool = False
    made_by: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.shared_classes or self.mixed_classes:
            return
        both = set(self.train.classes) & (set(self.query.classes) | set(self.gallery.classes))
        if both:
            raise ValueError(
                f"{self.name}: training and test classes must be disjoint, but share {len(both)}, "
                f"such as {min(both)!r}"
            )


def chosen_classes(split: Split, chosen: Iterable[int]) -> Split:
    """The items of these classes alone, which become classes 0, 1, ... in their old order."""
    chosen = sorted(chosen)
    new = torch.full((len(split.classes),), -1)
    new[chosen] = torch.arange(len(chosen))
    part = split.select((new[split.labels] >= 0).nonzero()[:, 0])
    classes = tuple(split.classes[c] for c in chosen)
    return replace(part, labels=new[part.labels], classes=classes)


def halves(classes: int, name: str) -> tuple[range, range]:
    """The numbers of the first half of the sorted classes, to train on, and of the rest, to test.

    >>> halves(5, "five")
    (range(0, 3), range(3, 5))
    """
    if classes < 2:
        raise ValueError(f"{name}: wanted two classes or more, got {classes}")
    middle = (classes + 1) // 2
    return range(middle), range(middle, classes)


EVERY = 5
"""Of so many training classes one validates, where nothing else is asked for."""


def hold_out(splits: Splits, fold: int = 0, every: int = EVERY) -> Splits:
    """Validation within the training data, for choosing settings and epochs without the test set.

    Every fifth training class validates and the others train; there are five such folds. Where
    training and test share their classes, so do these: of each class the last sixth of its images
    validates, of few images two, so that each has kin, but no more than half.

    Args:
        fold: from which class on, counted from the fifth back.
        every: 2 for every second class in place of every fifth, of which there are two folds, ...;
            where classes are shared, one half of each class's images, in their order, and the
            other. A class of one image keeps it to train on.

    Raises: ValueError where there are fewer classes than that.
    """
    train = splits.train
    if splits.shared_classes:
        size, place = train.labels.bincount()[train.labels], place_in_class(train.labels)
        if every == EVERY:
            held = place >= size - (size // 6).clamp_min(2).minimum(size // 2)
        else:
            held = (place * every // size == every - 1 - fold % every) & (size > 1)
        part, validation = train.select((~held).nonzero()[:, 0]), train.select(held.nonzero()[:, 0])
    else:
        classes = range(len(train.classes))
        if len(classes) < every:
            raise ValueError(
                f"{splits.name}: wanted {every} training classes or more, of which one in {every} "
                f"validates, got {len(classes)} classes"
            )
        part = chosen_classes(train, [c for c in classes if (c + fold) % every != every - 1])
        validation = chosen_classes(train, [c for c in classes if (c + fold) % every == every - 1])
    return replace(splits, train=part, query=validation, gallery=validation)


def subset(split: Split, keep_images: float, keep_classes: float, seed: int) -> Split:
    """A part of the classes, and of each class's images: a share in (0, 1], or a whole number from
    2 on, which is how many there are to be at most.

    Nested: with one seed, a smaller part is contained in a larger. Two classes, and two images of
    a class that has them, are always kept, as there is nothing to learn from fewer.
    """
    for name, part in (("keep_images", keep_images), ("keep_classes", keep_classes)):
        refuse_no_part(name, part)
    if keep_images == keep_classes == 1:
        return split
    random = np.random.default_rng(seed)
    class_rank = random.permutation(len(split.classes))
    luck = random.random(len(split))

    by_luck = torch.from_numpy(luck.argsort())
    rank = torch.empty_like(by_luck)
    rank[by_luck] = place_in_class(split.labels[by_luck])
    kept = how_many(keep_images, np.bincount(split.labels))
    part = split.select((rank < torch.from_numpy(kept)[split.labels]).nonzero()[:, 0])

    classes = how_many(keep_classes, np.array(len(split.classes)))
    return chosen_classes(part, np.flatnonzero(class_rank < classes).tolist())


def how_many(part: float, of: np.ndarray) -> np.ndarray:
    """A share of these numbers, rounded, or so many; 2 at least.

    >>> how_many(0.5, np.array([3, 12])).tolist(), how_many(4, np.array([3, 12])).tolist()
    ([2.0, 6.0], [4.0, 4.0])
    """
    return np.maximum(2, np.rint(part * of)) if part <= 1 else np.full(of.shape, float(part))


def places_in(query: Split, gallery: Split) -> Tensor:
    """(B,) the place of each query's item in the gallery, -1 where it does not stand there.

    An item is known by its name, and by its vector or pixels where these are in memory, so that
    names may stand for several items, as those of files without their folders do.
    """
    if query is gallery:
        return torch.arange(len(query))
    if not query.names:
        return torch.full((len(query),), -1)
    place = {name: i for i, name in enumerate(gallery.names)}
    found = torch.tensor([place.get(name, -1) for name in query.names], dtype=torch.int64)
    if not (isinstance(query.inputs, Tensor) and isinstance(gallery.inputs, Tensor)):
        return found
    there = (found >= 0).nonzero()[:, 0]
    if len(there):
        same = query.inputs[there] == gallery.inputs[found[there]]
        found[there[~same.flatten(1).all(1)]] = -1
    if len(place) < len(gallery.names):
        tell_apart(query, gallery, found)
    return found


def tell_apart(query: Split, gallery: Split, found: Tensor) -> None:
    """Put into `found` the places of queries whose name several items of the gallery have: each
    has that of an item with its inputs, and of equal items each another one."""
    count = Counter(gallery.names)
    places: dict[tuple[str, bytes], list[int]] = {}
    for i in range(len(gallery.names) - 1, -1, -1):
        if count[gallery.names[i]] > 1:
            places.setdefault(known_by(gallery, i), []).append(i)
    for i, name in enumerate(query.names):
        if count[name] > 1:
            left = places.get(known_by(query, i), [-1])
            found[i] = left.pop() if len(left) > 1 else left[0]


def known_by(split: Split, i: int) -> tuple[str, bytes]:
    """The name of an item, and its inputs; -0 as 0."""
    return split.names[i], (split.tensor[i] + 0).numpy().tobytes()


def copies_in(query: Split, gallery: Split) -> int:
    """How many queries have, to the bit, the vector of an item of the gallery.

    >>> some = Split(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]), ("a",))
    >>> copies_in(some, Split(torch.tensor([[2.0], [3.0]]), torch.tensor([0, 0]), ("a",)))
    1
    """
    held = {row.tobytes() for row in gallery.tensor.numpy()}
    return sum(row.tobytes() in held for row in query.tensor.numpy())


def in_classes_of(query: Split, gallery: Split) -> Tensor:
    """The gallery's labels in the query's numbering of classes; classes of its own come after."""
    number = {name: i for i, name in enumerate(query.classes)}
    for name in gallery.classes:
        number.setdefault(name, len(number))
    numbers = torch.tensor([number[name] for name in gallery.classes])
    return numbers[gallery.labels]
