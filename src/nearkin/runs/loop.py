"""One run: it streams steps, can be saved between any two of them, and goes on bit for bit.

Nothing random outlives a step: each step seeds dropout and augmentation from (seed, step) alone,
and the batches of an epoch are a function of (seed, epoch). So a checkpoint is tensors and plain
numbers, and holds no generator's state.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from nearkin import models
from nearkin.data import Split, Splits, structure, transforms
from nearkin.data.samplers import OneImage
from nearkin.data.splits import in_classes_of, places_in
from nearkin.data.transforms import Pictures
from nearkin.files import write_whole
from nearkin.losses import cached_backward
from nearkin.losses.protocol import active_share
from nearkin.measure import kin_counts
from nearkin.measure.metrics import NO_KIN
from nearkin.models.heads import folded, halves
from nearkin.names import look_up, unknown
from nearkin.registry import AUGMENTS, METRICS, PRECISIONS, SAMPLERS, SOURCES
from nearkin.runs import build
from nearkin.runs.head_start import begin, refuse_unfit
from nearkin.runs.holds import Hold
from nearkin.runs.machine import usable
from nearkin.runs.recipe import Recipe
from nearkin.tensors import effective_rank

WATCH_EVERY = 20  # steps from one look at loss, gradient and embeddings to the next
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of bf16 at each run
LARGEST = 2**30  # bytes of stored features that are made once for all steps
KEPT = {"recipe", "data", "step", "epochs", "seconds", "loss_sum", "backbone", "loss", "optimizer"}
KEPT |= {"average"}
"""What a checkpoint holds."""


@dataclass(frozen=True)
class Step:
    """One step of training; what is watched (loss, gradient norm, ...) is there every 20 steps."""

    step: int
    epoch: int
    images: int
    watched: dict[str, float]


class Run:
    """A recipe being carried out: its parts, and where it stands."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        device: str = "auto",
        start: str | None = None,
    ):
        """start: the checkpoint that the recipe's `start` stands for; None: itself; "": none."""
        refuse_unfit(recipe)
        self.recipe = recipe
        self.sampler = look_up(recipe.sampler, SAMPLERS, "sampler")
        look_up(recipe.augment, AUGMENTS, "augment")
        precision = look_up(recipe.precision, PRECISIONS, "precision")
        if recipe.metric not in ("", *METRICS):
            raise unknown(recipe.metric, METRICS, "metric")
        self.splits, self.validation = build.choose_data(recipe, splits)
        for examined in filter(None, (self.splits, self.validation)):
            refuse_no_kin(examined)
        self.fabric = Fabric(accelerator=usable(device), devices=1, precision=precision)
        self.device = self.fabric.device
        torch.manual_seed(recipe.seed)
        from_here = recipe if start is None else replace(recipe, start=start)
        backbone: Any = build.make_backbone(from_here, self.splits)
        self.mean, self.std = backbone.mean, backbone.std
        begin(recipe, backbone, self.splits.train.labels, self.read, lambda: self.data)
        backbone = backbone.to(memory_format=torch.channels_last)  # convolutions: 1.5 x as fast
        self.loss: Any = build.make_loss(recipe, self.splits).to(self.device)
        self.miner = build.make_miner(recipe)
        optimizer = build.make_optimizer(recipe, backbone, self.loss)
        self.backbone, self.optimizer = self.fabric.setup(backbone, optimizer)
        self.trunk = list(backbone.trunk.parameters())
        self.hold = Hold(recipe, backbone, self.optimizer)
        self.still, self.rest = halves(backbone)
        self.pixels: dict[int, Tensor] = {}  # of photographs that are on the device, by address
        self.inputs = self.on_device(self.splits.train.inputs)
        self.labels = self.splits.train.labels.to(self.device)
        self.pattern = structure(recipe.sampler, recipe.batch)
        self.pattern = self.pattern and tuple(p.to(self.device) for p in self.pattern)
        self.step = 0
        self.epochs: list[dict] = []  # what each finished epoch came to
        self.seconds = self.other_seconds = 0.0  # of training; of evaluation and saving
        self.loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        self.batches = self.batches_of(0)
        self.epoch_of_batches, self.first_batch = 0, self.batches[0]
        self.total = recipe.steps or recipe.epochs * len(self.batches)
        if recipe.refine:
            refiner_of(self)
        if self.total and not any(p.requires_grad for p in backbone.parameters()):
            raise ValueError(f"backbone {recipe.backbone!r} has nothing to train: epochs must be 0")
        if self.total and not recipe.memory and not any(True for _ in self.loss.parameters()):
            refuse_nothing_to_learn(self)

    def batches_of(self, epoch: int) -> Tensor:
        """(steps, batch) indices into the training split."""
        r, train = self.recipe, self.splits.train
        try:
            return self.sampler(train.labels, r.batch, r.per_class, r.seed, epoch)
        except OneImage as error:
            raise OneImage(error.label, error.count, repr(train.classes[error.label])) from None

    def next_batch(self) -> Tensor:
        """Indices (batch,) of the next step."""
        epoch, position = divmod(self.step, len(self.batches))
        if epoch != self.epoch_of_batches:
            self.batches, self.epoch_of_batches = self.batches_of(epoch), epoch
        return self.batches[position]

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

    @cached_property
    def data(self) -> str:
        """The same for the same training items, in their order, with the same classes; photographs
        are told by their names and sizes."""
        train = self.splits.train
        said = hashlib.sha256(repr((train.classes, train.names)).encode())
        x = train.inputs
        for held in (train.labels, *((x,) if isinstance(x, Tensor) else (x.heights, x.widths))):
            said.update(held.contiguous().numpy().data)
        return said.hexdigest()

    def on_device(self, inputs: Pictures) -> Pictures:
        """The inputs on the device; photographs, whose splits share their pixels, where they fit
        into half of the memory that is free."""
        if isinstance(inputs, Tensor):
            return inputs.to(self.device)
        if self.device.type == "cpu":
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
        if not stored or self.recipe.chunk:
            return None
        return self.embed_by(self.still, self.splits.train).to(self.device)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (B, D) of prepared inputs, or of rows of `seen`."""
        if self.seen is None:
            return self.backbone(x)
        with self.fabric.autocast():
            return self.rest(x)

    @property
    def deployed(self) -> Any:
        """The backbone as it is evaluated and kept: averaged, and every head one linear layer."""
        return folded(self.hold.of(self.backbone.module))

    def embed(self, split: Split, batch: int = 512) -> Tensor:
        """Embeddings (N, D) float32 of a split, by the backbone alone, on the CPU."""
        return self.embed_by(self.deployed, split, batch)

    def embed_by(self, module: nn.Module, split: Split, batch: int = 512) -> Tensor:
        """What a module makes of a split, unaugmented: (N, F) float32 on the CPU."""
        module.eval()
        inputs, rows = self.on_device(split.inputs), []
        with torch.no_grad(), self.fabric.autocast():
            for indices in torch.arange(len(split)).split(batch):
                rows.append(module(self.prepare(inputs, indices)).float().cpu())
        return torch.cat(rows)

    def embed_first_batch(self) -> Tensor:
        """Embeddings (batch, D) float32 of the first batch, unaugmented, on the device: the same
        images whenever it is asked, so that what is said of them can be compared."""
        self.backbone.eval()
        with torch.no_grad():
            return self.backbone(self.prepare(self.inputs, self.first_batch)).float()

    def prepare(self, inputs, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A batch as the backbone takes it; augmented where a generator is given."""
        x = transforms.batch(
            inputs,
            indices,
            augment=self.recipe.augment,
            train=generator is not None,
            size=self.recipe.size,
            generator=generator,
            mean=self.mean,
            std=self.std,
        ).to(self.device)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def train(run: Run) -> Iterator[Step]:
    """Take the run from where it stands to its end, one step at a time.

    Between two steps the run may be saved, evaluated or left.
    """
    recipe = run.recipe
    while run.step < run.total:
        indices = run.next_batch()
        torch.manual_seed(noise_seed(recipe.seed, run.step))
        generator = torch.Generator().manual_seed(noise_seed(recipe.seed, run.step))
        set_learning(run)
        seen = run.seen
        inputs = run.prepare(run.inputs, indices, generator) if seen is None else seen[indices]
        labels = run.labels[indices.to(run.device)]
        embeddings, value = forward_backward(run, inputs, labels)
        run.loss_sum += value.detach()
        run.step += 1
        watched = {}
        if run.step % WATCH_EVERY == 0 or run.step == run.total:
            watched = watch(run, embeddings, labels, value)
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(run.backbone.parameters(), recipe.clip)
        run.optimizer.step()
        run.hold.after_step(run.backbone.module)
        run.optimizer.zero_grad()
        yield Step(run.step, run.epoch, run.step * recipe.batch, watched)


def forward_backward(run: Run, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (detached) and loss of a batch, its gradients left in the parameters."""

    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        tuples = run.miner(embeddings.detach(), labels) if run.miner else run.pattern
        return run.loss(embeddings, labels, tuples)

    if run.recipe.chunk:
        return cached_backward(
            run.backbone, inputs, labels, loss, run.recipe.chunk, run.fabric.backward
        )
    embeddings = run.forward(inputs)
    value = loss(embeddings, labels)
    run.fabric.backward(value)
    return embeddings.detach(), value


def refiner_of(run: Run) -> Any:
    """The graph layers by which test images are refined, or an error that says what is missing."""
    look_up(run.recipe.refine, SOURCES, "refine")
    refiner = getattr(run.loss, "refiner", None)
    if refiner is None:
        raise ValueError(f"refine={run.recipe.refine!r} wants a loss with graph layers")
    return refiner


def refuse_nothing_to_learn(run: Run) -> None:
    """A loss without proxies or classifiers wants kin and others in a batch, and of a sampler of
    pairs or triplets those that it looks at."""
    recipe, labels = run.recipe, run.splits.train.labels[run.batches]  # (steps, B)
    ordered = labels.sort(1).values
    alike = ordered[:, 1:] == ordered[:, :-1]
    for lacking, wanted in (
        (not alike.any(), "two images of a class"),
        (alike.all(), "two classes"),
    ):
        if lacking:
            raise ValueError(
                f"{recipe.loss} wanted {wanted} in a batch, and none has them: "
                f"sampler={recipe.sampler}, batch={recipe.batch}, per_class={recipe.per_class}"
            )
    if run.pattern and not run.miner:
        generator, first = torch.Generator().manual_seed(0), labels[0].to(run.device)
        anywhere = torch.randn(32, recipe.batch, recipe.dim, generator=generator).to(run.device)
        run.loss.eval()  # a loss with a state learns nothing from noise
        nothing = all(run.loss(x, first, run.pattern) == 0 for x in anywhere)
        run.loss.train()
        if nothing:
            raise ValueError(
                f"{recipe.loss} learns nothing from sampler={recipe.sampler}: it finds none of "
                "what it looks at among them; take sampler=classes"
            )


def refuse_no_kin(splits: Splits) -> None:
    """Of what is tested, someone must have kin to be found: in the gallery or, where classes are
    shared, among the training images."""
    query, gallery = splits.query, splits.gallery
    kin = kin_counts(query.labels, in_classes_of(query, gallery), places_in(query, gallery))
    if not (kin.any() or splits.shared_classes or splits.mixed_classes):
        raise ValueError(f"{splits.name}: {NO_KIN}")


def noise_seed(seed: int, step: int) -> int:
    """A seed for what is random in one step, apart from those of weights and batches."""
    return (seed * 1_000_003 + step) * 2_654_435_761 % 2**63


def set_learning(run: Run) -> None:
    """Learning rates of the next step, and whether the trunk learns in it."""
    recipe = run.recipe
    factor = build.rate_factor(recipe, run.step, run.total)
    for group in run.optimizer.param_groups:
        group["lr"] = group["rate"] * factor
    resting = recipe.freeze or run.step * recipe.epochs < recipe.head_first * run.total
    run.backbone.train()
    for parameter in run.trunk:
        parameter.requires_grad_(not resting)
    if recipe.freeze:
        run.backbone.module.trunk.eval()


def watch(run: Run, embeddings: Tensor, labels: Tensor, value: Tensor) -> dict[str, float]:
    """What tells early that a network collapses or diverges."""
    gradients = [p.grad for p in run.backbone.parameters() if p.grad is not None]
    watched = {
        "loss": value.item(),
        "gradient_norm": nn.utils.get_total_norm(gradients).item(),
        "effective_rank": effective_rank(embeddings.float()).item(),
        "learning_rate": run.optimizer.param_groups[0]["lr"],
    }
    with torch.no_grad():
        active = active_share(run.loss, embeddings, labels)
    return watched if active is None else watched | {"active": active}


def save(run: Run, path: Path) -> None:
    """Write where the run stands, whole or not at all: tensors and plain data only."""
    state = {
        "recipe": run.recipe.plain(),
        "data": run.data,
        "step": run.step,
        "epochs": run.epochs,
        "seconds": [run.seconds, run.other_seconds],
        "loss_sum": run.loss_sum,
        "backbone": run.backbone.module.state_dict(),
        "loss": run.loss.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.hold.state_dict(),
    }
    write_whole(path, lambda file: torch.save(state, file))


def restore(run: Run, path: Path) -> None:
    """Put the run where `save` left it; a checkpoint of another recipe is refused."""
    state = models.read(path)
    if state.keys() != KEPT or not isinstance(state["recipe"], dict):
        raise ValueError(f"{path} is not the checkpoint of a run")
    recipe = run.recipe.plain()
    if state["recipe"] != recipe:
        changed = [k for k, v in recipe.items() if state["recipe"].get(k) != v]
        raise ValueError(
            f"{path} is a checkpoint of another recipe: it differs in {', '.join(changed)}"
        )
    if state["data"] != run.data:
        raise ValueError(f"{path} was made on other data: delete it to begin anew")
    run.step, run.epochs = state["step"], state["epochs"]
    run.loss_sum = state["loss_sum"].to(run.device)
    run.seconds, run.other_seconds = state["seconds"]
    run.backbone.module.load_state_dict(state["backbone"])
    run.loss.load_state_dict(state["loss"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.hold.load_state_dict(state["average"])
