"""A data set's embeddings by one backbone, written once: `nearkin embed`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin import models
from nearkin.data import Split, Splits, load
from nearkin.data.fingerprint import fingerprint
from nearkin.data.photographs import stored_side
from nearkin.data.sets.catalogue import named
from nearkin.data.transforms import PHOTOGRAPH_SIDE
from nearkin.files import refuse_source, resolved, write_whole
from nearkin.models import origin
from nearkin.models.folder import folder_of
from nearkin.models.model import Model, find
from nearkin.models.preprocess import preprocessing_of
from nearkin.runs.engine import Place
from nearkin.runs.manners import as_found
from nearkin.tensors import usable

BATCH = 64
SAVE_SECONDS = 30.0  # from one save of what is done to the next


@dataclass(frozen=True)
class Progress:
    """Items embedded so far, and all."""

    done: int
    total: int


def embed(
    model: Model,
    splits: Splits,
    path: Path,
    *,
    key: str = "",
    folder: str = "",
    device: str = "auto",
    threads: int = 0,
) -> Iterator[Progress]:
    """Write the embeddings of every split to an npz file that `features:FILE` reads.

        x (N, D) float32, y (N,) class names, names (N,), split (N,) of train, query and gallery,
        variant, metric, made_by: the Model, as nearkin.models.origin describes it

    What is done lies beside the file until it is whole, so that a killed call goes on; `key` says
    of which items and by what, and work done under another key, or of another number of items, or
    of which the file is broken, is begun anew. Between two batches the process is as it was found.
    """
    parts = parts_of(splits)
    total = sum(len(split) for _, split in parts)
    key = f"{total} items: {key}"
    kept = path.with_name(f".{path.name}.partial")
    done = finished(kept, key, total, model.dim)
    position = sum(len(x) for x in done)
    saved = perf_counter()
    for split, indices in batches_of(parts, position):
        with as_found(threads, device):
            done.append(model.embed(split.select(indices), batch=BATCH, device=device))
        position += len(indices)
        if perf_counter() - saved > SAVE_SECONDS:
            write_whole(kept, lambda file: keep(file, done, key))
            saved = perf_counter()
        yield Progress(position, total)
    write(path, torch.cat(done), splits, model, folder)
    kept.unlink(missing_ok=True)
    yield Progress(total, total)  # also where an earlier call had embedded all


def parts_of(splits: Splits) -> list[tuple[str, Split]]:
    """The splits that hold items of their own, in the order in which they are embedded."""
    parts = [("train", splits.train), ("query", splits.query)]
    return parts + ([("gallery", splits.gallery)] if splits.gallery is not splits.query else [])


def batches_of(
    parts: list[tuple[str, Split]], start: int = 0, stop: int | None = None
) -> Iterator[tuple[Split, Tensor]]:
    """The batches of items start..stop, counted through all parts: a split, and places in it.

    A batch lies in one split; where its bounds are decides its last bits, so that `start` and
    `stop` must lie between two batches.
    """
    first = 0
    for _, split in parts:
        low = min(max(0, start - first), len(split))
        high = len(split) if stop is None else min(max(0, stop - first), len(split))
        first += len(split)
        if low < high:  # arange(n, n) splits into one empty batch
            yield from ((split, indices) for indices in torch.arange(low, high).split(BATCH))


def write(path: Path, x: Tensor, splits: Splits, model: Model, folder: str) -> None:
    """Write the embeddings (N, D) of all splits."""
    parts = parts_of(splits)
    data = {"name": splits.name, "variant": splits.variant, "fingerprint": fingerprint(splits)}
    arrays: dict[str, Any] = {
        "x": x.numpy(),
        "y": np.concatenate([np.array(s.classes)[s.labels.numpy()] for _, s in parts]),
        "names": np.array([name for _, s in parts for name in s.names]),
        "split": np.concatenate([np.full(len(s), kind) for kind, s in parts]),
        "variant": np.array(splits.variant),
        "metric": np.array(model.metric),
        "made_by": np.array(json.dumps(origin.describe(model, folder, data))),
    }
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))


@dataclass(frozen=True)
class EmbeddingTask:
    """What is embedded, and by what; its fields are those of `nearkin embed`.

    One made by name (by default lite0) has no head: its features are the embeddings.
    """

    data: str
    checkpoint: Path | str | None = None
    backbone: str = ""
    backbone_options: Mapping = field(default_factory=dict)
    size: int = 0
    made_by: str = ""
    made_size: int = 0

    def __post_init__(self) -> None:
        if self.checkpoint and (self.backbone or self.backbone_options):
            given = self.backbone or ", ".join(self.backbone_options)
            raise ValueError(
                f"wanted a checkpoint or a backbone by name, got {self.checkpoint} and {given}"
            )
        if self.size < 0:
            raise ValueError(f"size must be 0 or more, got {self.size}")
        if self.made_size < 0 or (self.made_size and not self.made_by):
            raise ValueError(
                f"--made-size {self.made_size} goes with --made-by, a side of 0 pixels or more"
            )
        if self.made_by and not self.checkpoint:
            raise ValueError("--made-by goes with --checkpoint, a head on the features it made")

    def opened(self, place: Place, decode: Any = None) -> tuple[Splits, Model, str]:
        """The data set, the Model, and the folder that it lies in (or "").

        decode: how the pictures are decoded; see `nearkin.data.request.Request`.
        """
        model, where, loaded = None, "", self.size
        if self.checkpoint:
            below = find(self.made_by, self.made_size) if self.made_by else None
            model, where, loaded = found(str(self.checkpoint), self.data, self.size, below)
        splits = load(
            self.data,
            place.root,
            download=place.download,
            skip_bad=place.skip_bad,
            size=loaded,
            decode=decode,
        )
        if model is None:
            model = by_name(self.backbone or "lite0", self.backbone_options, splits, self.size)
        elif where.endswith(".pt") and model.preprocessing:  # the file does not tell: the data do
            p = model.preprocessing
            model.preprocessing = preprocessing_of(
                splits.train.inputs, self.size or p.width, p.mean, p.std, splits.inverted
            )
        return splits, model, where

    def source(self, place: Place) -> str:
        """Where the data set lies."""
        return str(resolved(named(self.data, place.root)[1]))


def load_and_embed(
    data: str,
    output: Path,
    checkpoint: Path | str | None,
    backbone: str,
    backbone_options: Mapping,
    size: int,
    place: Place,
    made_by: str = "",
    made_size: int = 0,
) -> Iterator[Progress]:
    """`embed` with the data set loaded, by a Model that is found or by a backbone made by name.

    One made by name (by default lite0) has no head: its features are the embeddings.
    """
    task = EmbeddingTask(data, checkpoint, backbone, backbone_options, size, made_by, made_size)
    check_writable(output, task.source(place))
    device = usable(place.device)
    with as_found(place.threads, device):
        splits, model, where = task.opened(place)
        known = [data, task.source(place), fingerprint(splits), place.skip_bad, model.identity]
    key = json.dumps(known)
    return embed(model, splits, output, key=key, folder=where, device=device, threads=place.threads)


def found(checkpoint: str, data: str, size: int, below: Model | None) -> tuple[Model, str, int]:
    """The Model, the folder that it lies in (or ""), and the side to load the data at.

    Args:
        below: the Model that made the features on which the checkpoint, a head, was trained.
    """
    model, path = find(checkpoint, 0 if below else size), Path(checkpoint).expanduser()
    where = str(resolved(folder_of(path))) if path.exists() else ""
    if below:
        model, where = (below.at_size(size) if size else below).join(model), ""
    side = size or (model.preprocessing.width if model.preprocessing else 0)
    enlarge = where.endswith(".pt") or stored_side(side) > stored_side(0)
    return model, where, side if enlarge and not data.startswith("features:") else 0


def by_name(name: str, options: Mapping, splits: Splits, size: int) -> Model:
    """The features of a backbone by name, for the pictures (or vectors) of a data set."""
    inputs = splits.train.inputs
    size = size or (0 if isinstance(inputs, Tensor) else PHOTOGRAPH_SIDE)
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else (3, size, size)
    weights = Path(str(options.get("weights", ""))).expanduser()
    if weights.is_file():  # so that it is found again from another folder
        options = {**options, "weights": str(resolved(weights))}
    model = origin.without_head(name, options, shape, None)
    mean, std = model.backbone.mean, model.backbone.std
    model.preprocessing = preprocessing_of(inputs, size, mean, std, splits.inverted)
    return model


def check_writable(output: Path, source: str) -> None:
    """An error now, not after the work, where the file cannot be written, or is what is read."""
    if output.suffix != ".npz":
        raise ValueError(f"the output must be an .npz file, got {output}")
    if output.is_dir():
        raise ValueError(f"the output must be an .npz file, got the folder {output}")
    refuse_source(output, Path(source))
    try:
        folder = next(path for path in output.absolute().parents if path.exists())
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"the output {output} cannot be written: {error.strerror}") from None


def keep(file: Any, done: list[Tensor], key: str) -> None:
    torch.save({"key": key, "done": torch.cat(done)}, file)


def finished(kept: Path, key: str, total: int, dim: int) -> list[Tensor]:
    """What an earlier, killed call under the same key has done."""
    try:
        state = models.read(kept)
    except ValueError:  # there is none, or it is broken
        return []
    done = state.get("done")
    if not isinstance(done, Tensor) or done.dtype != torch.float32 or done.ndim != 2:
        return []
    fits = len(done) <= total and done.shape[1] == dim
    return [done] if fits and state.get("key") == key else []
