"""Weights of timm's hub: fetched over https, and held to the digest by which the hub names them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import torch

from nearkin.download import fetch
from nearkin.extras import optional
from nearkin.files import resolved


def hub_weights(name: str) -> dict[str, Any]:
    """What `timm.create_model(name, pretrained=True, pretrained_cfg_overlay=...)` is to be told, so
    that it loads the file whose digest was checked here; nothing of a model without weights.

    Raises:
        OSError: the hub is not within reach.
        ValueError: the file is not what its name says, or nothing says what it should be.
    """
    with optional():
        from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return {}
    path = hub_file(config) if config.hf_hub_id else fetched_file(str(config.url))
    return {"file": str(path), "custom_load": False}


def hub_file(config: Any) -> Path:
    """The file of weights in the hub's folder on this disk, fetched where it is not there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = str(config.hf_hub_id).partition("@")
    named = [config.hf_hub_filename] if config.hf_hub_filename else []
    error: Exception = FileNotFoundError(f"{repository} has no weights")
    for filename in named or ("model.safetensors", "pytorch_model.bin"):
        try:
            path = Path(hf_hub_download(repository, filename, revision=revision or None))
        except EntryNotFoundError as missing:
            error = missing
            continue
        refuse_changed(path)
        return path
    raise error


def refuse_changed(path: Path) -> None:
    """The hub's folder names files by their digests: the sha256 of large ones, git's of small ones.

    Where the disk has no links, the file bears its own name and is taken as it is.
    """
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        return
    digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(name) == 40:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != name:
        raise ValueError(
            f"{path}: its digest is {digest.hexdigest()}, the hub's is {name}: "
            f"remove {resolved(path)}, and it will be fetched anew"
        )


def fetched_file(address: str) -> Path:
    """The file of an address that ends in the beginning of its sha256, as torch's files do."""
    digest = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", address)
    if not digest:
        raise ValueError(f"{address} comes without a checksum; fetch it and give weights=FILE")
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if not path.exists():
        fetch(path, [address], digest[1])
    return path
