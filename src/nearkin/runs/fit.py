"""`nk.fit`: one's own backbone, loss and data, trained by the loop of the recipes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.data import Splits
from nearkin.data.fingerprint import of_tensor
from nearkin.data.own import NAME, own_splits
from nearkin.doctor import Doctor
from nearkin.losses.protocol import metric_of
from nearkin.models.model import Model
from nearkin.names import plain_number, unknown
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.evaluate import Diverged, examine
from nearkin.runs.health import attend, tell_test
from nearkin.runs.loggers import FOLDER, Logger, loggers_of
from nearkin.runs.loop import Step, train
from nearkin.runs.manners import as_found
from nearkin.runs.model import model_of
from nearkin.runs.place import Place
from nearkin.runs.ranks import Ranks, current
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.tensors import usable

SAVE_SECONDS = 30.0
OBJECTS = ("data", "backbone", "loss", "trial", "validate")
"""Fields of a recipe that are no settings of `fit`."""


@dataclass(frozen=True)
class EpochEnd:
    """What a callback is told at the end of an epoch.

    loss: mean over the epoch's steps. metrics: of the test data, where there are any, and it is
    their turn.
    """

    epoch: int
    step: int
    loss: float
    metrics: dict[str, float]
    run: Run

    @cached_property
    def model(self) -> Model:
        """The Model as it stands, a copy."""
        return model_of(self.run)


class Callback:
    """Two functions as one callback; any object with either method serves as well.

    Args:
        on_step: called with each `Step`.
        on_epoch: called with each `EpochEnd`.

    True from either ends the training.
    """

    def __init__(
        self,
        on_step: Callable[[Step], Any] | None = None,
        on_epoch: Callable[[EpochEnd], Any] | None = None,
    ):
        self.on_step = on_step or (lambda step: None)
        self.on_epoch = on_epoch or (lambda end: None)


def fit(
    backbone: nn.Module | str,
    loss: nn.Module | str,
    data: Any,
    labels: Any = None,
    *,
    test: Any = None,
    test_labels: Any = None,
    callbacks: Any = (),
    loggers: str | Logger | Iterable[str | Logger] = (),
    folder: str | Path = FOLDER,
    resume: str | Path | None = None,
    doctor: Doctor | None = None,
    device: str = "auto",
    threads: int = 0,
    **settings: Any,
) -> Model:
    """Train a backbone by a loss on one's own data, and return the Model.

        net = timm.create_model("resnet18", pretrained=True, num_classes=64)
        model = nk.fit(net, nk.losses.Contrastive(), images, labels, size=128, epochs=8)
        model.save("my-model")

    The objects are trained themselves; `model.backbone` is a copy of the backbone.

    Where torch.distributed is initialised, its processes train together, each with a slice of every
    batch, and all call this alike, with the same data; they begin with the weights of rank 0's
    objects. Rank 0 writes to loggers and to `resume`; callbacks are called in every process, and
    one that returns True in any ends the training in all.

    Args:
        backbone: inputs (B, ...) -> embeddings (B, D); or a name, as in a recipe. One with a
            `trunk` and a `head` may have two learning rates, or a trunk that rests; `mean` and
            `std`, where it has them, are taken out of the pixels, in 0..1.
        loss: `loss(embeddings, labels)` or `loss(embeddings, labels, indices_tuple)`, as in
            pytorch-metric-learning; or a name.
        data, labels, test, test_labels: see `nearkin.data.own.own_splits`.
        callbacks: an object with `on_step(Step)` or `on_epoch(EpochEnd)`, such as `Callback`, or
            several; one that returns True ends the training.
        loggers: "tensorboard", "csv", "wandb", "mlflow", or objects with Lightning Fabric's
            interface.
        folder: in which loggers by name write.
        resume: a file in which the state is kept, at each epoch's end and every 30 s; where it is
            there, of the same settings and data, the training goes on from it, on the CPU to the
            same weights. It is removed at the end.
        doctor: an `nk.Doctor`, who looks at each step, and afterwards says what ails the run.
        device: cpu, cuda or auto.
        threads: of the CPU; 0: as many as there are.
        settings: fields of a recipe, such as epochs, batch, lr, sampler, size, augment, metric.

    Raises:
        ValueError: a setting is unknown or of another type; the data, the backbone and the loss do
            not fit together; the loss is not finite.
    """
    settings = {name: plain_number(value) for name, value in settings.items()}
    place = Place(device=usable(device), threads=threads)
    device, heard, size = place.device, callbacks_of(callbacks), settings.get("size", 0)
    with as_found(place.threads, device):
        size = size if isinstance(size, int) else 0  # what it must be, the recipe says
        splits = own_splits(data, labels, test, test_labels, size=size)
        ranks = current()
        run = run_of(backbone, loss, splits, settings, device, ranks)
        ranks.refuse_others(settings=run.recipe.plain(), labels=of_tensor(splits.train.labels))
        tested = isinstance(data, Splits) or test is not None
        kept = Path(resume).expanduser() if resume else None
        if doctor:
            attend(doctor, run)
        if kept:
            with ranks.file(kept) as left:
                if left:
                    restore(run, left)
        told = loggers_of(loggers, Path(folder).expanduser()) if ranks.first else []
        for logger in told:
            with suppress(NotImplementedError):  # Fabric's CSV logger keeps no settings
                logger.log_hyperparams(run.recipe.plain())
        status = "failed"
        try:
            metrics = follow(run, heard, told, kept, tested)
            status = "success"
        finally:
            if doctor:
                doctor.close()
            for logger in told:
                logger.finalize(status)
        if kept and ranks.first:
            kept.unlink(missing_ok=True)
        model = model_of(run)
        if metrics:
            model.provenance["metrics"] = {"last": {"epoch": run.epoch, **metrics}}
        return model


def run_of(
    backbone: nn.Module | str,
    loss: nn.Module | str,
    splits: Splits,
    settings: dict,
    device: str,
    ranks: Ranks,
) -> Run:
    """The run of objects or names under these settings."""
    known = [f.name for f in fields(Recipe) if f.name not in OBJECTS]
    for name in settings:
        if name not in known:
            raise unknown(name, known, "setting of fit")
    choices = {"data": splits.name or NAME, **settings}
    objects: dict[str, Any] = {}
    for part, given in (("backbone", backbone), ("loss", loss)):
        if isinstance(given, str):
            choices[part] = given
        elif isinstance(given, nn.Module):
            objects[part] = given if part == "backbone" else with_three_arguments(given)
            choices[part] = f"own:{type(given).__name__}"
        else:
            wanted = f"{part} must be an nn.Module or a name"
            raise ValueError(f"{wanted}, got {type(given).__name__}")
    if isinstance(backbone, nn.Module):
        choices["dim"] = dimension(backbone, splits, choices)
    if isinstance(loss, nn.Module):
        refuse_fewer_classes(loss, len(splits.train.classes))
        if not choices.get("metric"):
            metric_of(loss)  # one without a metric is refused before the work
    return Run(Recipe(**choices), splits, device, ranks=ranks, **objects)


def refuse_fewer_classes(loss: nn.Module, wanted: int) -> None:
    """A loss with a part for each class, as pytorch-metric-learning's have, wants one for all."""
    made_for = getattr(loss, "num_classes", None)
    if isinstance(made_for, int) and made_for < wanted:
        raise ValueError(
            f"{type(loss).__name__}: num_classes must be {wanted} or more, as many as the training "
            f"data have, got {made_for}"
        )


class TwoArguments(nn.Module):
    """A loss(embeddings, labels) in the place of one that takes a miner's choice too."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss"), name)

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Any = None) -> Tensor:
        return self.loss(embeddings, labels)


def with_three_arguments(loss: nn.Module) -> nn.Module:
    """The loss, to be called as loss(embeddings, labels, indices_tuple)."""
    try:
        signature(loss.forward).bind(None, None, None)
    except TypeError:
        return TwoArguments(loss)
    return loss


def dimension(backbone: nn.Module, splits: Splits, choices: dict) -> int:
    """D, as the backbone makes it of the first item."""
    from nearkin.data.transforms import batch

    x = batch(
        splits.train.inputs,
        torch.zeros(1, dtype=torch.int64),
        train=False,
        size=choices.get("size", 0),
        mean=getattr(backbone, "mean", (0.0,)),
        std=getattr(backbone, "std", (1.0,)),
    )
    first = next(backbone.parameters(), x)
    training = backbone.training
    try:
        with torch.no_grad():
            found = backbone.eval()(x.to(first.device, first.dtype))
    except (RuntimeError, TypeError, IndexError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"the backbone cannot take inputs {tuple(x.shape)}: {said}") from None
    finally:
        backbone.train(training)
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(f"the backbone must make embeddings (B, D), got {shape}")
    return found.shape[1]


def follow(
    run: Run, callbacks: list, loggers: Iterable[Logger], kept: Path | None, tested: bool
) -> dict[str, float]:
    """Train to the end, or until a callback ends it; the metrics of the last test, if any."""
    saved, metrics = time.perf_counter(), {}
    for step in train(run):
        log(loggers, step.step, "train", step.watched)
        stop = any([answer(callback, "on_step", step) for callback in callbacks])
        if run.epoch_ends:
            end = end_of(run, tested)
            metrics = end.metrics or metrics
            log(loggers, run.step, "train", {"epoch_loss": end.loss})
            log(loggers, run.step, "test", end.metrics)
            stop = any([answer(callback, "on_epoch", end) for callback in callbacks]) or stop
        if kept and (run.epoch_ends or time.perf_counter() - saved > SAVE_SECONDS):
            save(run, kept)
            saved = time.perf_counter()
        if callbacks and any(run.ranks.told(stop)):
            break
    return metrics


def callbacks_of(wanted: Any) -> list:
    """One callback or several, as a list."""
    found = list(wanted) if isinstance(wanted, Iterable) else [wanted]
    for each in found:
        if not (hasattr(each, "on_step") or hasattr(each, "on_epoch")):
            raise ValueError(
                "a callback wants on_step or on_epoch, as nk.Callback(on_step=f) has, got "
                f"{type(each).__name__}"
            )
    return found


def answer(callback: Any, name: str, told: Any) -> bool:
    """Whether a callback wants the training to end."""
    act = getattr(callback, name, None)
    return act is not None and act(told) is True


def log(loggers: Iterable[Logger], step: int, part: str, numbers: dict) -> None:
    """Finite numbers under part/name."""
    named = {f"{part}/{name}": value for name, value in numbers.items() if is_finite(value)}
    for logger in loggers if named else ():
        logger.log_metrics(named, step)


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def end_of(run: Run, tested: bool) -> EpochEnd:
    """Close an epoch: its mean loss, and the metrics of the test data where they are due."""
    epoch, steps = run.epoch, run.step - sum(e["steps"] for e in run.epochs)
    loss = run.loss_sum.item() / max(steps, 1)
    run.loss_sum.zero_()
    run.epochs.append({"epoch": epoch, "steps": steps, "seconds": run.seconds, "loss": loss})
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss} in epoch {epoch}: take a lower lr")
    metrics: dict[str, float] = {}
    last = run.step == run.total
    if tested and (last or epoch % run.recipe.evaluate_every == 0):
        try:
            metrics = examine(run, run.splits, final=last)
        except Diverged:
            raise ValueError(
                f"embeddings are not finite after epoch {epoch}: take a lower lr"
            ) from None
        tell_test(run, metrics)
    return EpochEnd(epoch, run.step, loss, metrics, run)
