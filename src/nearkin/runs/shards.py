"""Embedding in parts: each by one process of any machine, then joined into one file, bit for bit.

    x.npz.parts/00003-of-00064/part.npz    embeddings of the items from start to stop
                               lease.N     of who is at it
    x.npz, x.npz.receipt.json              once all parts are there

A part ends between two batches of the whole, so that each batch is the one that a single process
would have embedded: the last bits of an embedding may depend on its batch, and they do on the
number of threads, which the receipt tells. Of pictures each process decodes those of its parts
alone.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.data import Splits
from nearkin.data.arrays import read_arrays
from nearkin.data.cache import Source, photographs
from nearkin.data.fingerprint import fingerprint
from nearkin.data.photographs import Photographs
from nearkin.data.sets.listings import SMALL
from nearkin.files import parse_json, read_json, write_whole
from nearkin.leases import Leases, Taken
from nearkin.models.model import Model
from nearkin.runs.embedding import (
    BATCH,
    EmbeddingTask,
    batches_of,
    check_writable,
    parts_of,
    write,
)
from nearkin.runs.fleet import Fleet
from nearkin.runs.log import Silent
from nearkin.runs.machine import machine
from nearkin.runs.manners import as_found
from nearkin.runs.place import Place
from nearkin.runs.workers import until_done
from nearkin.tensors import usable

MOST = 100_000  # parts
HERE = Fleet()


@dataclass(frozen=True)
class Part:
    """What is known of one part that is done.

    start, stop: its items, counted through all splits.
    total: items of the data set.
    key: of what was embedded by what; parts of one key belong together.
    state: of this part's own items, which changes when one of them does.
    model: the Model's identity.
    """

    shard: int
    shards: int
    start: int
    stop: int
    total: int
    key: str
    state: str
    model: str
    seconds: float
    threads: int
    device: str
    host: str


def bounds(lengths: Sequence[int], shard: int, shards: int) -> tuple[int, int]:
    """Start and stop of a part's items: whole batches, as many in each part as in the others.

    >>> [bounds([100, 70], shard, 3) for shard in range(3)]
    [(0, 64), (64, 100), (100, 170)]
    """
    ends = [0]
    for length in lengths:
        first = ends[-1]
        ends += [min(first + done + BATCH, first + length) for done in range(0, length, BATCH)]
    batches = len(ends) - 1
    return ends[shard * batches // shards], ends[(shard + 1) * batches // shards]


class OneOf:
    """Decodes the pictures of one part; of the others nothing is known then.

    A set of small pictures that are all of one size lives in memory as one tensor, for which all of
    them are decoded.
    """

    def __init__(self, shard: int, shards: int):
        self.shard, self.shards = shard, shards

    def __call__(
        self, name: str, root: Path, files: Sequence[str], lengths: Sequence[int], **options: Any
    ) -> tuple[Photographs, Tensor]:
        start, stop = bounds(lengths, self.shard, self.shards)
        if start == stop:  # whether the pictures are small must be known all the same
            start, stop = 0, min(BATCH, len(files))
        own, _ = photographs(name, root, files[start:stop], **options)
        sizes = torch.stack([own.heights, own.widths], 1).unique(dim=0)
        small = len(sizes) == 1 and sizes.max() <= SMALL
        if small or stop - start == len(files):
            return photographs(name, root, files, **options)
        found = unknown_pictures(len(files), options["channels"])
        assert own.digests is not None
        assert found.digests is not None
        found.heights[start:stop] = own.heights
        found.widths[start:stop] = own.widths
        found.starts[start:stop] = own.starts
        found.digests[start:stop] = own.digests
        return replace(found, pixels=own.pixels), torch.arange(len(files))


def lengths_of(splits: Splits) -> list[int]:
    """How many items the splits hold that are embedded."""
    return [len(split) for _, split in parts_of(splits)]


def unknown_pictures(count: int, channels: int) -> Photographs:
    """Pictures of which nothing is known but their number; their sizes are told apart."""
    sizes, zeros = torch.arange(1, count + 1), torch.zeros(count, dtype=torch.int64)
    digests = torch.zeros(count, 16, dtype=torch.uint8)
    return Photographs(
        torch.zeros(0, dtype=torch.uint8), zeros, sizes, sizes.clone(), channels, digests
    )


class Recorded:
    """Gives pictures as the parts recorded them: their sizes and digests, without their pixels."""

    def __init__(self, parts: Sequence[Mapping[str, np.ndarray]]):
        joined = {k: np.concatenate([p[k] for p in parts]) for k in ("sizes", "digests")}
        self.sizes = torch.from_numpy(joined["sizes"])
        self.digests = torch.from_numpy(joined["digests"])

    def __call__(
        self,
        name: str,
        root: Path,
        files: Sequence[str],
        lengths: Sequence[int],
        channels: int,
        source: Source | None = None,
        **options: Any,
    ) -> tuple[Photographs, Tensor]:
        if len(files) != len(self.sizes):
            raise ValueError(f"{name}: {len(files):,} files now, {len(self.sizes):,} were embedded")
        found = unknown_pictures(len(files), channels)
        heights, widths = self.sizes.T.contiguous()
        return replace(found, heights=heights, widths=widths, digests=self.digests), torch.arange(
            len(files)
        )


def embed_shards(
    task: EmbeddingTask,
    output: Path,
    shards: int,
    shard: int | None = None,
    *,
    place: Place = Place(),
    fleet: Fleet = HERE,
    bar: Silent | None = None,
) -> Path | None:
    """Embed a data set in parts, and join them; a part that is done is not done again.

    Any number of processes and machines that share the output's folder may do this at once.

    Args:
        shard: the one part to embed, from 0; None: all.
        fleet: what does the parts.

    Returns:
        The receipt, once all parts are there and joined; None before.
    """
    if not 1 <= shards <= MOST:
        raise ValueError(f"wanted 1 to {MOST:,} shards, got {shards}")
    if shard is not None and not 0 <= shard < shards:
        raise ValueError(f"wanted a shard of 0 to {shards - 1}, got {shard}")
    check_writable(output, task.source(place))
    if place.skip_bad:
        raise ValueError("--skip-bad does not go with --shards: nobody knows what others skip")
    bar, leases = bar or Silent(), Leases()
    if fleet != HERE:
        threads = fleet.threads or max(1, torch.get_num_threads() // fleet.jobs)
        place = replace(place, threads=place.threads or threads)
    wanted = range(shards) if shard is None else [shard]
    bar.expect(len(wanted))
    until_done(
        {i: partial(attempt_part, task, output, i, shards, place, leases) for i in wanted},
        fleet.executor(output.parent),
        lambda i: leases.taken(folder_of(output, i, shards)),
        lambda part: bar.finish(f"part {part.shard + 1} of {shards}: {part.stop - part.start:,}"),
        bar.say,
    )
    receipt = join(task, output, shards, place, leases)
    if receipt and len(threads := read_json(receipt)["threads"]) > 1:
        bar.say(f"parts were made by {threads} threads: last bits are not those of one process")
    return receipt


def folder_of(output: Path, shard: int, shards: int) -> Path:
    """Where a part and its lease are."""
    return output.with_name(f"{output.name}.parts") / f"{shard:05d}-of-{shards:05d}"


def attempt_part(
    task: EmbeddingTask, output: Path, shard: int, shards: int, place: Place, leases: Leases
) -> Part | None:
    """Embed one part, unless it is stored; None where another process is at it."""
    folder = folder_of(output, shard, shards)
    if leases.taken(folder):
        return None
    device = usable(place.device)
    try:
        with leases(folder, wait=False), as_found(place.threads, device):
            splits, model, _ = task.opened(place, OneOf(shard, shards))
            start, stop = bounds(lengths_of(splits), shard, shards)
            arrays, state = recorded(splits, start, stop)
            key = key_of(task, place, model, splits, shards)
            stored = read_part(folder / "part.npz")
            if stored and (stored.key, stored.state) == (key, state):
                return stored
            began, x = perf_counter(), [torch.empty(0, model.dim)]
            for split, indices in batches_of(parts_of(splits), start, stop):
                x.append(model.embed(split.select(indices), batch=BATCH, device=device))
            part = Part(
                shard,
                shards,
                start,
                stop,
                total=sum(lengths_of(splits)),
                key=key,
                state=state,
                model=model.identity,
                seconds=round(perf_counter() - began, 3),
                threads=torch.get_num_threads(),
                device=machine(torch.device(device)).gpu or machine(torch.device("cpu")).cpu,
                host=platform.node(),
            )
            arrays |= {"x": torch.cat(x).numpy(), "about": np.array(json.dumps(asdict(part)))}
            write_whole(folder / "part.npz", lambda file: np.savez(file, **arrays))
            return part
    except Taken:
        return None


def recorded(splits: Splits, start: int, stop: int) -> tuple[dict[str, Any], str]:
    """What a part notes of its pictures, where they are many sizes: sizes (n, 2) and digests
    (n, 16); and a name of its items' content."""
    if not isinstance(splits.train.inputs, Photographs):
        return {}, fingerprint(splits)
    sizes, digests = [], []
    for split, indices in batches_of(parts_of(splits), start, stop):
        some: Any = split.inputs[indices]
        sizes.append(torch.stack([some.heights, some.widths], 1))
        digests.append(some.digests)
    noted: dict[str, Any] = {
        "sizes": torch.cat([torch.empty(0, 2, dtype=torch.int64), *sizes]).numpy(),
        "digests": torch.cat([torch.empty(0, 16, dtype=torch.uint8), *digests]).numpy(),
    }
    content = b"".join(noted[name].tobytes() for name in sorted(noted))
    return noted, hashlib.sha256(content).hexdigest()[:16]


def key_of(task: EmbeddingTask, place: Place, model: Model, splits: Splits, shards: int) -> str:
    """16 hex digits of which items of which classes are embedded, by which Model, in how many
    parts; the content of the items is no part of it."""
    known = [task.data, task.source(place), model.identity, shards]
    content = hashlib.sha256(json.dumps(known).encode())
    for kind, split in parts_of(splits):
        content.update(repr((kind, len(split), split.classes, split.names)).encode())
        content.update(split.labels.numpy().tobytes())
    return content.hexdigest()[:16]


def read_part(path: Path, keys: Sequence[str] = ("about",)) -> Part | None:
    """What a part says of itself; None where it is not there, or broken."""
    try:
        about = parse_json(str(read_arrays(path, keys)["about"]), str(path))
        return Part(**about)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def join(
    task: EmbeddingTask, output: Path, shards: int, place: Place, leases: Leases
) -> Path | None:
    """Write the file of all parts, and the receipt, once all of them are there."""
    paths = [folder_of(output, i, shards) / "part.npz" for i in range(shards)]
    if not all(path.exists() for path in paths):
        return None
    folder, receipt = paths[0].parents[1], output.with_name(f"{output.name}.receipt.json")
    with leases(folder), as_found(place.threads, usable(place.device)):
        parts = [part for part in map(read_part, paths) if part]
        arrays = [read_arrays(path) for path in paths]
        noted = all("sizes" in one for one in arrays)
        splits, model, where = task.opened(place, Recorded(arrays) if noted else None)
        key, total = key_of(task, place, model, splits, shards), sum(lengths_of(splits))
        fits = len(parts) == shards and all(part.key == key for part in parts)
        fits = fits and (noted or {part.state for part in parts} == {fingerprint(splits)})
        ends = [part.stop for part in parts]
        once = [part.start for part in parts] == [0, *ends[:-1]] and ends[-1] == total
        x = torch.from_numpy(np.concatenate([one["x"] for one in arrays]))
        if not fits or not once or len(x) != total:
            raise ValueError(
                f"{folder}: parts are of other data, or of another Model: the same command for "
                "each shard makes those anew that do not fit"
            )
        write(output, x, splits, model, where)
        text = json.dumps(receipt_of(parts, output), indent=1) + "\n"
        write_whole(receipt, lambda file: file.write(text.encode()))
    return receipt


def receipt_of(parts: Sequence[Part], output: Path) -> dict[str, Any]:
    """What was done: each item once, by which Model, by whom and in which time."""
    with open(output, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fields = ("shard", "start", "stop", "seconds", "threads", "device", "host", "state")
    return {
        "file": output.name,
        "sha256": digest,
        "items": parts[0].total,
        "each_item_once": sum(p.stop - p.start for p in parts) == parts[0].total,
        "model": parts[0].model,
        "seconds": round(sum(part.seconds for part in parts), 3),
        "threads": sorted({part.threads for part in parts}),
        "shards": [{name: getattr(part, name) for name in fields} for part in parts],
    }
