"""A data set's embeddings by one backbone, written once: `nearkin embed`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin import backbones
from nearkin.data import Split, Splits, load, transforms
from nearkin.data.catalogue import named
from nearkin.data.transforms import PHOTOGRAPH_SIDE
from nearkin.runs.engine import Place
from nearkin.runs.machine import keep_freed_memory, usable
from nearkin.runs.store import write_whole

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
    of what and by what, and work done under another key, or of another number of items, is begun
    anew.
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

    A timm model made by name has no head: its features are the embeddings.
    """
    if output.suffix != ".npz":
        raise ValueError(f"the output must be an .npz file, got {output}")
    if place.threads:
        torch.set_num_threads(place.threads)
    device = usable(place.device)
    learnt = ""
    if checkpoint:
        net = backbones.rebuild(backbones.read(checkpoint))
        learnt = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        shape = net.made["input_shape"]
        size = size or (shape[-1] if len(shape) == 3 else 0)
    splits = load(data, place.root, download=place.download, skip_bad=place.skip_bad, size=size)
    if not checkpoint:
        torch.manual_seed(0)  # of a network without weights, so that a killed call goes on with it
        inputs = splits.train.inputs
        size = size or (0 if isinstance(inputs, Tensor) else PHOTOGRAPH_SIDE)
        shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else (3, size, size)
        timm = backbone == "lite0" or backbone.startswith("timm:")
        options = {"head": "none"} | dict(backbone_options) if timm else backbone_options
        net = backbones.make(backbone, options, shape, dim=1)
    source = str(named(data, place.root)[1].resolve())
    key = json.dumps([data, source, place.skip_bad, learnt, backbone, dict(backbone_options), size])
    return embed(net, splits, output, size=size, key=key, device=device)


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
    if not kept.exists():
        return []
    state = torch.load(kept, weights_only=True)
    return [state["done"]] if state["key"] == key else []
