"""A Run: the parts of a recipe that is being carried out, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from nearkin.data import Split, Splits, structure, transforms
from nearkin.data.fingerprint import fingerprint
from nearkin.data.items import Items
from nearkin.data.samplers import OneImage
from nearkin.data.transforms import Pictures
from nearkin.losses.mining import both_ways
from nearkin.losses.protocol import Mined, wants_of
from nearkin.models.heads import folded, halves
from nearkin.models.network import in_full
from nearkin.names import look_up
from nearkin.registry import PRECISIONS, SAMPLERS
from nearkin.runs import build
from nearkin.runs.head_start import begin, read_once, refuse_unfit
from nearkin.runs.holds import Hold
from nearkin.runs.machine import usable
from nearkin.runs.manners import seeded
from nearkin.runs.ranks import ALONE, Ranks, here
from nearkin.runs.recipe import Recipe
from nearkin.runs.refusals import (
    refuse_another_dim,
    refuse_copies,
    refuse_no_features,
    refuse_no_kin,
    refuse_nothing_to_learn,
    refuse_other_precision,
    refuse_too_many,
    refuse_unheard_miner,
)
from nearkin.runs.tail import Tail

Found = TypeVar("Found")
BATCH = 512  # items that are embedded at once, without gradients
LARGEST = 2**30  # bytes of stored features that are made once for all steps


class Run:
    """A recipe being carried out: its parts, and where it stands.

    Args:
        splits: the whole data set, of which the recipe says what trains.
        start: the file that the recipe's `start` stands for; None: itself; "": none.
        backbone: an object in place of the one that the recipe names; it is trained itself. One
            with a `trunk` and a `head` can be frozen, and have two learning rates; its `mean` and
            `std` are taken out of the pixels, by default 0 and 1.
        loss: an object in place of the one that the recipe names; it is trained itself.
        fingerprint: of the data set, where it is known; "": made when it is needed.
        ranks: the processes that carry it out together, in each of which there is such a Run.

    Raises:
        ValueError: a name or an option of the recipe is wrong, or the run could never learn.
    """

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        device: str = "auto",
        start: str | None = None,
        *,
        backbone: nn.Module | None = None,
        loss: nn.Module | None = None,
        fingerprint: str = "",
        ranks: Ranks = ALONE,
    ):
        build.refuse_unknown(recipe)
        if backbone is not None:
            refuse_other_precision(backbone)
        refuse_unfit(recipe)
        refuse_too_many(recipe, ranks.count)
        self.ranks = ranks
        self.embedded: dict[int, Tensor] = {}  # of splits, by id, while rank 0 measures
        self.measures = False  # whether it does
        self.rehearsed: bool | None = (
            None  # whether the trunk learnt when the network was tried out
        )
        self.recipe, self.whole, self.fingerprint = recipe, splits, fingerprint
        self.sampler = look_up(recipe.sampler, SAMPLERS, "sampler")
        self.splits, self.validation = build.choose_data(recipe, splits)
        for examined in filter(None, (self.splits, self.validation)):
            refuse_no_kin(examined)
        transforms.refuse_augment(self.splits.train.inputs, recipe.augment)
        precision = PRECISIONS[recipe.precision]
        devices = [torch.cuda.current_device()] if usable(device) == "cuda" else 1
        self.fabric = Fabric(accelerator=usable(device), devices=devices, precision=precision)
        self.device = self.fabric.device
        from_here = recipe if start is None else replace(recipe, start=start)
        self.pixels: dict[int, Tensor] = {}  # of photographs that are on the device, by address
        self.read_as: Hashable = False  # what decides the features that a started head reads
        with seeded(recipe.seed):
            own: Any = backbone
            if own is None:
                own = build.make_backbone(from_here, self.splits)
            self.mean, self.std = getattr(own, "mean", (0.0,)), getattr(own, "std", (1.0,))
            self.tail = Tail(self, own) if backbone is None and recipe.tail else None
            if backbone is None:
                labels = self.splits.train.labels
                self.read_as = begin(
                    recipe,
                    own,
                    labels,
                    self.read,
                    lambda: self.data_fingerprint,
                    remember=ranks.count == 1,
                )
            self.loss: Any = build.make_loss(recipe, self.splits, own, loss)
        if "features" in wants_of(self.loss):
            refuse_no_features(recipe, own, self.loss)
        self.trunk = build.trunk_of(recipe, own, named=backbone is None)
        self.learning = [p for p in self.trunk.parameters() if p.requires_grad]
        self.folds = backbone is None
        if hasattr(own, "made"):  # an own class may call `view`
            own = own.to(memory_format=torch.channels_last)  # convolutions: 1.5 x as fast
        self.loss = self.loss.to(self.device)
        self.miner = build.make_miner(recipe, self.loss)
        optimizer = build.make_optimizer(recipe, own, self.loss)
        self.backbone, self.optimizer = self.fabric.setup(own, optimizer)
        ranks.align(own, self.loss)
        self.hold = Hold(recipe, own, self.optimizer)
        self.still, self.rest = halves(own) if self.folds else (nn.Sequential(), own)
        self.rest = self.tail.after(own) if self.tail else self.rest
        self.inputs = self.on_device(self.splits.train.inputs)
        self.labels = self.splits.train.labels.to(self.device)
        self.pattern = structure(recipe.sampler, recipe.batch)
        self.pattern = self.pattern and tuple(p.to(self.device) for p in self.pattern)
        self.step = 0
        self.doctor: Any = None  # an nk.Doctor, where one is to look at each step
        self.epochs: list[dict] = []  # what each finished epoch came to
        self.threads_before: list[int] = []  # numbers of threads at work before the last `restore`
        self.processes_before: list[dict[str, Any]] = []  # at work before the last `restore`
        self.processes = [
            {"rank": rank, "host": host, "pid": pid, "images": 0}
            for rank, (host, pid) in enumerate(ranks.told(here()))
        ]
        self.seconds = self.other_seconds = 0.0  # of training; of evaluation and saving
        self.loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        self.known: dict[str, Tensor] = {}  # near classes or edges, for a sampler that wants them
        refuse_copies(self)
        self.batches = self.batches_of(0)
        self.epoch_of_batches, self.first_batch = 0, self.batches[0]
        self.total = recipe.steps or recipe.epochs * len(self.batches)
        build.refuse_no_means(recipe, self.loss)
        if self.total and recipe.loss_start == build.MEANS:
            self.loss.start_at(self.survey(), self.labels)
        if backbone is not None:
            refuse_another_dim(self)
        build.refuse_no_refiner(recipe, self.loss)
        if self.total and not any(p.requires_grad for p in own.parameters()):
            raise ValueError(f"backbone {recipe.backbone!r} has nothing to train: epochs must be 0")
        if self.total and not recipe.memory and not any(True for _ in self.loss.parameters()):
            refuse_nothing_to_learn(self)
        if self.total:
            refuse_unheard_miner(self)

    def batches_of(self, epoch: int) -> Tensor:
        """(steps, batch) indices into the training split."""
        r, train = self.recipe, self.splits.train
        try:
            return self.sampler(train.labels, r.batch, r.per_class, r.seed, epoch, **self.known)
        except OneImage as error:
            raise OneImage(error.label, error.count, repr(train.classes[error.label])) from None

    def next_batch(self) -> Tensor:
        """Indices (batch,) of the next step."""
        epoch, position = divmod(self.step, len(self.batches))
        if epoch != self.epoch_of_batches:
            self.draw(epoch)
        return self.batches[position]

    def draw(self, epoch: int) -> None:
        """Draw the batches of this epoch of the sampler."""
        self.batches, self.epoch_of_batches = self.batches_of(epoch), epoch

    def mined(self, embeddings: Tensor, labels: Tensor) -> Mined:
        """The pairs or triplets that the miner chooses, or for which the sampler drew the batch."""
        if self.miner is not None:
            return self.miner(embeddings, labels)
        if self.pattern and len(self.pattern) == 2:  # edges: all pairs of two classes beside them
            return both_ways(torch.stack(self.pattern, 1), labels)
        return self.pattern

    def survey(self) -> Tensor:
        """Embeddings (N, D) of all training images as they are, on the device."""
        module = self.backbone.module
        if self.seen is None:
            return self.embed_by(module, self.splits.train).to(self.device)
        module.eval()
        with torch.no_grad(), self.fabric.autocast():
            return torch.cat([self.rest(part).float() for part in self.seen.split(BATCH)])

    @property
    def epoch(self) -> int:
        """The epoch of the step just done, from 1: the run falls into `epochs` equal parts."""
        return max(1, -(-self.step * self.recipe.epochs // self.total)) if self.total else 0

    @property
    def epoch_ends(self) -> bool:
        """Whether the step just done was the last of its epoch."""
        return self.step == self.total or (self.step + 1) * self.recipe.epochs > (
            self.epoch * self.total
        )

    @property
    def data_fingerprint(self) -> str:
        """Fingerprint of the data set: rows and checkpoints hold it, so that changed data are told
        from those that a run was made on."""
        self.fingerprint = self.fingerprint or fingerprint(self.whole)
        return self.fingerprint

    def on_device(self, inputs: Pictures) -> Pictures:
        """The inputs on the device; photographs, whose splits share their pixels, where they fit
        into half of the memory that is free."""
        if isinstance(inputs, Tensor):
            return inputs.to(self.device)
        if self.device.type == "cpu" or isinstance(inputs, Items):
            return inputs
        address = inputs.pixels.data_ptr()
        if address not in self.pixels:
            free, _ = torch.cuda.mem_get_info(self.device)
            fits = inputs.pixels.nbytes < free / 2
            self.pixels[address] = inputs.pixels.to(self.device) if fits else inputs.pixels
        return replace(inputs, pixels=self.pixels[address])

    def read(self, part: nn.Module) -> Tensor:
        """What a part of the backbone makes of the training images, unaugmented: (N, F)."""
        return self.embed_by(part.to(self.device), self.splits.train)

    @cached_property
    def seen(self) -> Tensor | None:
        """What the layers that learn nothing make of stored features, once for all steps; None
        where inputs are pictures, or that would take too much memory."""
        inputs = self.splits.train.inputs
        stored = isinstance(inputs, Tensor) and inputs.ndim == 2 and inputs.nbytes <= LARGEST
        if not stored or self.recipe.chunk or "features" in wants_of(self.loss):
            return None
        found = read_once(self.read_as, lambda: self.embed_by(self.still, self.splits.train))
        return found.to(self.device)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (B, D) of prepared inputs, of rows of `seen`, or of stored feature maps."""
        if self.seen is None and self.tail is None:
            return self.backbone(x)
        with self.fabric.autocast():
            return self.rest(x)

    def features_and_embeddings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk gives (B, F) of prepared inputs, and what the head makes of it (B, D)."""
        with self.fabric.autocast():
            features = self.stepped.trunk(x).flatten(1)
            return features, in_full(self.stepped.head, features)

    @property
    def stepped(self) -> Any:
        """What a step goes through: the network, or what of it comes after what is stored."""
        return self.backbone.module if self.seen is None and self.tail is None else self.rest

    @property
    def deployed(self) -> Any:
        """The backbone as it is evaluated and kept: averaged, and every head one linear layer."""
        kept = self.hold.of(self.backbone.module)
        return folded(kept) if self.folds else kept

    def embed(self, split: Split, batch: int = BATCH) -> Tensor:
        """Embeddings (N, D) float32 of a split, by the backbone alone, on the CPU."""
        if id(split) in self.embedded:
            return self.embedded[id(split)]
        return self.embed_by(self.deployed, split, batch)

    def embed_by(self, module: nn.Module, split: Split, batch: int = BATCH) -> Tensor:
        """What a module makes of a split, unaugmented: (N, F) float32 on the CPU.

        Where feature maps of the split are stored, the module begins with them.

        Ranks share the batches, each of them whole, so that every number is that of one process;
        all must ask together, and all have the answer. While rank 0 measures, it embeds alone.
        """
        module.eval()
        team = ALONE if self.measures else self.ranks
        inputs, rows = self.on_device(split.inputs), []
        read = self.tail.of(split) if self.tail else None
        module = self.tail.after(module) if self.tail and read else module
        read = read or partial(self.prepare, inputs)
        batches = torch.arange(len(split)).split(batch)
        with torch.no_grad(), self.fabric.autocast():
            for indices in batches[team.own(len(batches))]:
                rows.append(module(read(indices)).float().cpu())
        return team.joint(torch.cat(rows) if rows else None)

    def led(self, act: Callable[[], Found], *splits: Split) -> Found:
        """What act() comes to in rank 0, which measures alone; these splits are embedded before, by
        all ranks, each item once."""
        if self.ranks.count == 1:
            return act()
        self.embedded = {part: self.embed(split) for part, split in distinct(splits).items()}
        self.measures = True
        try:
            return self.ranks.lead(act)
        finally:
            self.embedded, self.measures = {}, False

    def embed_first_batch(self) -> Tensor:
        """Embeddings (batch, D) float32 of the first batch, unaugmented, on the device: the same
        images whenever it is asked, so that what is said of them can be compared."""
        self.backbone.eval()
        with torch.no_grad():
            return self.backbone(self.prepare(self.inputs, self.first_batch)).float()

    def prepare(
        self,
        inputs,
        indices: Tensor,
        generator: torch.Generator | None = None,
        part: Tensor | None = None,
    ) -> Tensor:
        """A batch as the backbone takes it, or the items at the positions `part` of it; augmented
        where a generator is given."""
        x = transforms.batch(
            inputs,
            indices,
            augment=self.recipe.augment,
            train=generator is not None,
            size=self.recipe.size,
            generator=generator,
            mean=self.mean,
            std=self.std,
            part=part,
        ).to(self.device)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def distinct(splits: Iterable[Split]) -> dict[int, Split]:
    """The different ones among splits, by id."""
    return {id(split): split for split in splits}


def refiner_of(run: Run) -> Any:
    """The graph layers by which test images are refined, or an error that says what is missing."""
    build.refuse_no_refiner(run.recipe, run.loss)
    return run.loss.refiner
