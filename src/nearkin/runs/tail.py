"""The tail of a pretrained network, trained alone: what comes before it is computed once, stored.

Dimensions: N training pictures, K crops of each, M pictures of all splits, B batch, C channels and
h x w cells of a feature map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from nearkin.data import Split, Splits
from nearkin.data.fingerprint import of_tensor
from nearkin.data.items import Items
from nearkin.data.maps import Table, stored
from nearkin.data.transforms import of
from nearkin.models.cut import Before, after, cut_before
from nearkin.runs import build

if TYPE_CHECKING:
    from nearkin.runs.run import Run

BUILT = ("output_stride", "bgr")
"""Options of a pretrained network that change its first stages."""


class Tail:
    """Stored feature maps of a run's pictures, of which its last stages and its head learn.

    One table holds the centre crops of the M pictures of all splits, by which the run is measured;
    another K augmented crops of each of the N training pictures, of which a step takes one at
    random. Crops are drawn alike for runs of all seeds, which share the tables. The run's network
    stays whole: its first stages rest, and are skipped.
    """

    def __init__(self, run: Run, backbone: Any):
        recipe, whole = run.recipe, run.whole
        if isinstance(whole.train.inputs, Items):
            raise ValueError("tail wants pictures that stay as they are, got items of a Dataset")
        sides = tuple(backbone.made["input_shape"])
        self.cut, shape = cut_before(backbone.trunk, recipe.tail, sides, recipe.backbone)
        before = Before(backbone.trunk, self.cut).requires_grad_(False).eval().to(run.device)
        self.before = before.to(memory_format=torch.channels_last)
        self.device, self.parts = run.device, parts_of(whole)
        self.places = places_of(run)
        self.train = self.places[id(run.splits.train)]  # (n,), rows among the N
        trains = recipe.augment != "none" and (recipe.epochs or recipe.steps)
        self.crops = recipe.tail_crops if trains else 0
        key = {"data": run.data_fingerprint, "weights": digest(before), "cut": self.cut}
        key |= {"backbone": recipe.backbone, "sides": sides, "mean": run.mean, "std": run.std}
        key |= {name: recipe.backbone_options.get(name) for name in BUILT}
        drawn = {**key, "augment": recipe.augment, "crops": self.crops}
        counts = sum(map(len, self.parts)), self.crops * len(whole.train)
        makes = self.centres_of(run), self.crops_of(run)
        tables = [
            Table(whole.name, of_table, count, shape, recipe.tail_bits, make)
            for of_table, count, make in zip((key, drawn), counts, makes, strict=True)
            if count
        ]
        self.centres, *self.augmented = stored(tables)

    def centres_of(self, run: Run) -> Callable[[Tensor], Tensor]:
        """What makes the maps of the centre crops at places (B,) among the M pictures."""
        inputs = [run.on_device(part.inputs) for part in self.parts]

        def make(places: Tensor) -> Tensor:
            found, first = [], 0
            for part in inputs:
                here = places[(places >= first) & (places < first + len(part))]
                found += [run.prepare(part, here - first)] if len(here) else []
                first += len(part)
            return self.maps(torch.cat(found))

        return make

    def crops_of(self, run: Run) -> Callable[[Tensor], Tensor]:
        """What makes the maps of the augmented crops at places (B,) among N first crops, N second
        ones, ..."""
        inputs = run.on_device(self.parts[0].inputs)

        def make(places: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(int(places[0]))
            return self.maps(run.prepare(inputs, places % len(inputs), generator))

        return make

    @torch.no_grad()
    def maps(self, pictures: Tensor) -> Tensor:
        """The feature maps (B, C, h, w) of prepared pictures, a few at a time: their early maps are
        large, and more of them leave the processor's cache."""
        few = pictures.split(4 if self.device.type == "cpu" else len(pictures))
        return torch.cat([self.before(part) for part in few])

    def of(self, split: Split) -> Callable[[Tensor], Tensor] | None:
        """What reads the stored centre crops of a split at indices (B,); None of another split."""
        places = self.places.get(id(split))
        if places is None:
            return None
        return lambda indices: self.centres[places[indices]].to(self.device)

    def batch(
        self, indices: Tensor, generator: Generator | None = None, part: Tensor | None = None
    ) -> Tensor:
        """The maps (B, C, h, w) of training images on the device, of the centre; where a generator
        is given, each of one of its augmented crops.

        part: (n,), of the batch only the items at these positions.
        """
        rows, table = self.train[indices], self.centres
        if generator is not None and self.augmented:
            drawn = torch.randint(self.crops, (len(indices),), generator=generator)
            rows, table = rows + drawn * len(self.parts[0]), self.augmented[0]
        return table[of(rows, part)].to(self.device)

    def after(self, module: Any) -> nn.Module:
        """What of a network, or of its trunk, reads the maps."""
        return after(module, self.cut)


def parts_of(splits: Splits) -> list[Split]:
    """The splits that hold pictures of their own; the centre crops are stored in this order."""
    parts = [splits.train, splits.query]
    return parts + ([splits.gallery] if splits.gallery is not splits.query else [])


def places_of(run: Run) -> dict[int, Tensor]:
    """By id, of each split that the run trains or is measured on: where its pictures stand among
    the stored centre crops. The recipe chooses among numbers as it did among pictures."""
    whole, first, numbered = run.whole, 0, {}
    for part in parts_of(whole):
        numbered[id(part)] = replace(part, inputs=torch.arange(first, first + len(part)))
        first += len(part)
    names = ("train", "query", "gallery")
    twins = {name: numbered[id(getattr(whole, name))] for name in names}
    chosen = build.choose_data(run.recipe, replace(whole, **twins))
    pairs = zip((run.splits, run.validation), chosen, strict=True)
    return {
        id(getattr(splits, name)): getattr(twin, name).inputs
        for splits, twin in pairs
        if splits and twin
        for name in names
    }


def digest(module: nn.Module) -> str:
    """16 hex digits of a module's weights."""
    content = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(module.state_dict().items()):
        content.update(name.encode() + of_tensor(tensor))
    return content.hexdigest()
