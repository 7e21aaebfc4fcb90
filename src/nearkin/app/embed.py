"""`nearkin embed`: a data set's embeddings by one backbone, written to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tyro.conf import OmitArgPrefixes

from nearkin.app.output import Labels, Machine, Parts
from nearkin.names import Plain


@dataclass(frozen=True)
class Embedding:
    """What is embedded, and by what."""

    data: str
    """data set: a name from `nearkin list`, or a folder, .csv or .npz file"""
    output: Path
    """.npz file to write; features:FILE then reads it"""
    checkpoint: Path | None = None
    """Model: a folder that `train` left (OUT/runs/HASH, or OUT where it holds one finished run), or
    lite0, lite2 or timm:NAME; by default a backbone by name, as it is"""
    backbone: str = ""
    """a name from `nearkin list`, or timm:NAME, by default lite0; its features, without a head
    (those of network and mlp are of random weights)"""
    backbone_options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for the backbone's constructor"""
    size: int = 0
    """side of the pictures in pixels; 0: as the Model has it, else small sets as they are and
    photographs at 128"""
    made_by: str = ""
    """backbone that made the features on which the checkpoint, a head, was trained, where its files
    do not tell: lite0, lite2, timm:NAME or a Model's folder"""
    made_size: int = 0
    """side in pixels at which it made them; 0: its own"""


def embed(
    embedding: OmitArgPrefixes[Embedding],
    parts: OmitArgPrefixes[Parts] = Parts(),
    machine: OmitArgPrefixes[Machine] = Machine(),
    labels: Labels = "",
) -> None:
    """Write a data set's embeddings by one backbone to a file, for heads and losses to train on.

    Example: nearkin embed --data cub --backbone lite0 --size 224 --output cub.npz

    Example: nearkin embed --data mnist-5k --checkpoint out/runs/HASH --output x.npz

    Example: nearkin embed --data tars:shards/ --output x.npz --shards 64 --on slurm --jobs 16

    Args:
        labels: of a folder of pictures, which folders on the way to one name its class: all
            (nested), the last (parent) or the first (top).
    """
    from nearkin.data.sets.catalogue import with_labels
    from nearkin.runs.embedding import load_and_embed
    from nearkin.runs.log import bar
    from nearkin.runs.machine import keep_freed_memory

    keep_freed_memory()
    if parts.shards:
        embed_parts(replace(embedding, data=with_labels(embedding.data, labels)), parts, machine)
        return
    parts.refuse_without_shards()
    with bar() as shown:
        embedding = replace(embedding, data=with_labels(embedding.data, labels))
        for progress in load_and_embed(**vars(embedding), place=machine.place()):
            shown.count(f"embedding {embedding.data}", progress.done, progress.total)
    print(f"{embedding.output}: {progress.total:,} embeddings, for features:{embedding.output}")


def embed_parts(embedding: Embedding, parts: Parts, machine: Machine) -> None:
    """Embed in parts, and say what is done."""
    from nearkin.files import read_json
    from nearkin.runs.embedding import EmbeddingTask
    from nearkin.runs.log import bar
    from nearkin.runs.shards import embed_shards

    fields = {name: value for name, value in vars(embedding).items() if name != "output"}
    with bar() as shown:
        receipt = embed_shards(
            EmbeddingTask(**fields),
            embedding.output,
            parts.shards,
            parts.shard,
            place=machine.place(),
            fleet=parts.fleet(),
            bar=shown,
        )
    if receipt is None:
        print(f"{embedding.output}: part {parts.shard} of {parts.shards} is done, others are not")
    else:
        items = read_json(receipt)["items"]
        print(f"{embedding.output}: {items:,} embeddings, for features:{embedding.output}")
