"""What a data set is: three splits of inputs with labels, and the rules that they keep.

Dimensions: N items, C channels, H x W pixels, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from nearkin.data.cache import Photographs


@dataclass(frozen=True)
class Split:
    """Inputs that belong together, with their classes.

    inputs: (N, C, H, W) uint8 pictures, (N, D) float32 features, or `Photographs` of many sizes.
    labels: (N,) int64 in 0..len(classes)-1.
    classes: the name of each class.
    names: the name of each item (its file, as a rule), or nothing.
    """

    inputs: Tensor | Photographs
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> Split:
        """The items at these indices; labels and classes as they were."""
        names = tuple(self.names[i] for i in indices.tolist()) if self.names else ()
        return replace(self, inputs=self.inputs[indices], labels=self.labels[indices], names=names)


@dataclass(frozen=True)
class Splits:
    """A data set: what to train on, what asks, and what is searched.

    gallery is the same object as query where each item is searched among all the others.
    variant says what the pictures are ("full frames, short side 128 px"): it stands beside results.
    shared_classes: training and test have the same classes (MNIST), which the code then expects;
    otherwise no class name of query or gallery may stand in train.
    """

    name: str
    train: Split
    query: Split
    gallery: Split
    variant: str = ""
    shared_classes: bool = False

    def __post_init__(self) -> None:
        if self.shared_classes:
            return
        both = set(self.train.classes) & (set(self.query.classes) | set(self.gallery.classes))
        if both:
            raise ValueError(
                f"{self.name}: training and test classes must be disjoint, but share {len(both)}, "
                f"such as {min(both)!r}"
            )
