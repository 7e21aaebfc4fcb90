"""A data set's embeddings by one backbone, written once: `nearkin embed`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin import models
from nearkin.data import Splits, load
from nearkin.data.fingerprint import fingerprint
from nearkin.data.photographs import stored_side
from nearkin.data.sets.catalogue import named
from nearkin.data.transforms import PHOTOGRAPH_SIDE
from nearkin.files import write_whole
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
    parts = [("train", splits.train), ("query", splits.query)]
    parts += [("gallery", splits.gallery)] if splits.gallery is not splits.query else []
    total = sum(len(split) for _, split in parts)
    key = f"{total} items: {key}"
    kept = path.with_name(f".{path.name}.partial")
    done = finished(kept, key, total, model.dim)
    position = sum(len(x) for x in done)
    start, saved = position, perf_counter()
    for _, split in parts:
        skip = min(start, len(split))
        start -= skip
        if skip == len(split):
            continue  # arange(n, n) splits into one empty batch
        for indices in torch.arange(skip, len(split)).split(BATCH):
            with as_found(threads, device):
                done.append(model.embed(split.select(indices), batch=BATCH, device=device))
            position += len(indices)
            if perf_counter() - saved > SAVE_SECONDS:
                write_whole(kept, lambda file: keep(file, done, key))
                saved = perf_counter()
            yield Progress(position, total)
    data = {"name": splits.name, "variant": splits.variant, "fingerprint": fingerprint(splits)}
    arrays: dict[str, Any] = {
        "x": torch.cat(done).numpy(),
        "y": np.concatenate([np.array(s.classes)[s.labels.numpy()] for _, s in parts]),
        "names": np.array([name for _, s in parts for name in s.names]),
        "split": np.concatenate([np.full(len(s), kind) for kind, s in parts]),
        "variant": np.array(splits.variant),
        "metric": np.array(model.metric),
        "made_by": np.array(json.dumps(origin.describe(model, folder, data))),
    }
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))
    kept.unlink(missing_ok=True)
    yield Progress(total, total)  # also where an earlier call had embedded all


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
    check_writable(output)
    if checkpoint and (backbone or backbone_options):
        given = backbone or ", ".join(backbone_options)
        raise ValueError(f"wanted a checkpoint or a backbone by name, got {checkpoint} and {given}")
    if size < 0:
        raise ValueError(f"size must be 0 or more, got {size}")
    device, where = usable(place.device), ""
    if made_size < 0 or (made_size and not made_by):
        raise ValueError(f"--made-size {made_size} goes with --made-by, a side of 0 pixels or more")
    if made_by and not checkpoint:
        raise ValueError("--made-by goes with --checkpoint, a head on the features it made")
    with as_found(place.threads, device):
        if checkpoint:
            below = find(made_by, made_size) if made_by else None
            model, where, loaded = found(str(checkpoint), data, size, below)
        else:
            model, loaded = None, size
        root = place.root
        splits = load(data, root, download=place.download, skip_bad=place.skip_bad, size=loaded)
        if model is None:
            model = by_name(backbone or "lite0", backbone_options, splits, size)
        elif (
            where.endswith(".pt") and model.preprocessing
        ):  # the file does not tell it: the data do
            p = model.preprocessing
            model.preprocessing = preprocessing_of(
                splits.train.inputs, size or p.width, p.mean, p.std, splits.inverted
            )
        source = str(named(data, root)[1].resolve())
        key = json.dumps([data, source, fingerprint(splits), place.skip_bad, model.identity])
    return embed(model, splits, output, key=key, folder=where, device=device, threads=place.threads)


def found(checkpoint: str, data: str, size: int, below: Model | None) -> tuple[Model, str, int]:
    """The Model, the folder that it lies in (or ""), and the side to load the data at.

    Args:
        below: the Model that made the features on which the checkpoint, a head, was trained.
    """
    model, path = find(checkpoint, 0 if below else size), Path(checkpoint).expanduser()
    where = str(folder_of(path).resolve()) if path.exists() else ""
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
        options = {**options, "weights": str(weights.resolve())}
    model = origin.without_head(name, options, shape, None)
    mean, std = model.backbone.mean, model.backbone.std
    model.preprocessing = preprocessing_of(inputs, size, mean, std, splits.inverted)
    return model


def check_writable(output: Path) -> None:
    """An error now, not after the work, where the file cannot be written."""
    if output.suffix != ".npz":
        raise ValueError(f"the output must be an .npz file, got {output}")
    if output.is_dir():
        raise ValueError(f"the output must be an .npz file, got the folder {output}")
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
