"""A data set's embeddings by one backbone, written once: `nearkin embed`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearkin import models
from nearkin.data import Split, Splits, load, transforms
from nearkin.data.fingerprint import fingerprint
from nearkin.data.sets.catalogue import named
from nearkin.data.transforms import PHOTOGRAPH_SIDE
from nearkin.files import write_whole
from nearkin.runs.engine import Place
from nearkin.runs.machine import keep_freed_memory, usable

BATCH = 64
SAVE_SECONDS = 30.0  # from one save of what is done to the next


@dataclass(frozen=True)
class Progress:
    """Items embedded so far, and all."""

    done: int
    total: int


def embed(
    backbone: Any, splits: Splits, path: Path, *, size: int = 0, key: str = "", device: str
) -> Iterator[Progress]:
    """Write the embeddings of every split to an npz file that `features:FILE` reads.

        x (N, D) float32, y (N,) class names, names (N,), split (N,) of train, query and gallery,
        variant

    What is done lies beside the file until it is whole, so that a killed call goes on; `key` says
    of which items and by what, and work done under another key, or of another number of items, or
    of which the file is broken, is begun anew.
    """
    keep_freed_memory()  # and pixels innermost: lite0 at 224 px in 16 instead of 66 ms a picture
    backbone = backbone.eval().to(device, memory_format=torch.channels_last)
    parts = [("train", splits.train), ("query", splits.query)]
    parts += [("gallery", splits.gallery)] if splits.gallery is not splits.query else []
    total = sum(len(split) for _, split in parts)
    key = f"{total} items: {key}"
    kept = path.with_name(f".{path.name}.partial")
    done = finished(kept, key)
    position = sum(len(x) for x in done)
    start, saved = position, perf_counter()
    for _, split in parts:
        skip = min(start, len(split))
        start -= skip
        if skip == len(split):
            continue  # arange(n, n) splits into one empty batch, which no crop can take
        for indices in torch.arange(skip, len(split)).split(BATCH):
            done.append(vectors(backbone, split, indices, size, device))
            position += len(indices)
            if perf_counter() - saved > SAVE_SECONDS:
                write_whole(kept, lambda file: keep(file, done, key))
                saved = perf_counter()
            yield Progress(position, total)
    arrays: dict[str, Any] = {
        "x": torch.cat(done).numpy(),
        "y": np.concatenate([np.array(s.classes)[s.labels.numpy()] for _, s in parts]),
        "names": np.array([name for _, s in parts for name in s.names]),
        "split": np.concatenate([np.full(len(s), kind) for kind, s in parts]),
        "variant": np.array(splits.variant),
    }
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))
    kept.unlink(missing_ok=True)
    yield Progress(total, total)  # also where an earlier call had embedded all


def load_and_embed(
    data: str,
    output: Path,
    checkpoint: Path | None,
    backbone: str,
    backbone_options: Mapping,
    size: int,
    place: Place,
) -> Iterator[Progress]:
    """`embed` with the data set loaded, and the backbone read from a file or made by name.

    One made by name (by default lite0) has no head: its features are the embeddings.
    """
    check_writable(output)
    if checkpoint and (backbone or backbone_options):
        given = backbone or ", ".join(backbone_options)
        raise ValueError(f"wanted a checkpoint or a backbone by name, got {checkpoint} and {given}")
    if size < 0:
        raise ValueError(f"size must be 0 or more, got {size}")
    if place.threads:
        torch.set_num_threads(place.threads)
    device = usable(place.device)
    if checkpoint:
        net = models.rebuild(models.read(checkpoint))
        made_by: Any = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        shape = net.made["input_shape"]
        size = size or (shape[-1] if len(shape) == 3 else 0)
    splits = load(data, place.root, download=place.download, skip_bad=place.skip_bad, size=size)
    if not checkpoint:
        torch.manual_seed(0)  # of a network without weights, so that a killed call goes on with it
        inputs = splits.train.inputs
        size = size or (0 if isinstance(inputs, Tensor) else PHOTOGRAPH_SIDE)
        shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else (3, size, size)
        backbone = backbone or "lite0"
        net = without_head(backbone, backbone_options, shape)
        made_by = [backbone, dict(backbone_options)]
    source = str(named(data, place.root)[1].resolve())
    key = json.dumps([data, source, fingerprint(splits), place.skip_bad, made_by, size])
    return embed(net, splits, output, size=size, key=key, device=device)


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


def without_head(name: str, options: Mapping, shape: Sequence[int]) -> Any:
    """The backbone of this name, but for its last layer, which would be a random projection."""
    backbone: Any = models.make(name, options, shape, dim=1)
    if options.get("head", "none") != "none":
        raise ValueError(f"wanted features, without a head, got head={options['head']}")
    if isinstance(backbone.head, nn.Sequential):
        backbone.head[-1] = nn.Identity()
    else:
        backbone.head = nn.Identity()
    return backbone


def vectors(backbone: Any, split: Split, indices: Tensor, size: int, device: str) -> Tensor:
    """Embeddings (B, D) float32 of some items, on the CPU."""
    x = transforms.batch(
        split.inputs, indices, train=False, size=size, mean=backbone.mean, std=backbone.std
    )
    x = x.to(device)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return backbone(x).float().cpu()


def keep(file: Any, done: list[Tensor], key: str) -> None:
    torch.save({"key": key, "done": torch.cat(done)}, file)


def finished(kept: Path, key: str) -> list[Tensor]:
    """What an earlier, killed call under the same key has done."""
    try:
        state = models.read(kept)
    except ValueError:  # there is none, or it is broken
        return []
    return [state["done"]] if state.get("key") == key else []
