"""Backbones as plain data, from which they are built again: by name, without a head, or joined.

A description is {"name", "options", "input_shape", "dim"}, as `nearkin.models.make` takes them;
dim 0 is a backbone without its last layer. Two more kinds have names of their own:

    joined   {"name": "joined", "features": description, "head": description}
    timm     {"name": "timm-object", "architecture": name in timm, "arguments": of create_model}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn

from nearkin import models
from nearkin.models.features import Backbone
from nearkin.models.network import Network


def unwrapped(backbone: nn.Module) -> nn.Module:
    """The backbone inside what spreads or compiles it, whose tensors have its own names."""
    if isinstance(backbone, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(backbone.module)
    compiled = getattr(backbone, "_orig_mod", None)  # by torch.compile
    return backbone if compiled is None else unwrapped(compiled)


def description(backbone: nn.Module) -> dict | None:
    """What `assemble` builds the backbone from; None of an own class, which it cannot build."""
    if made := getattr(backbone, "made", None):
        return dict(made)
    if isinstance(backbone, Network):
        return {
            "name": "layers",
            "options": {"layers": backbone.layers},
            "input_shape": list(backbone.input_shape),
            "dim": backbone.dim,
        }
    if hasattr(backbone, "pretrained_cfg"):
        return timm_description(backbone)
    return None


def assemble(described: Mapping[str, Any]) -> Any:
    """The backbone of a description, its weights random; torch's generator stays as it was."""
    name = str(described.get("name"))
    with torch.random.fork_rng(devices=[]):
        if name == "joined":
            return join(assemble(described["features"]), assemble(described["head"]))
        if name == "timm-object":
            import timm

            arguments: dict[str, Any] = dict(described["arguments"])
            return timm.create_model(described["architecture"], pretrained=False, **arguments)
        options, shape = dict(described["options"]), tuple(described["input_shape"])
        if "weights" in signature(models.builder(name)).parameters:
            options["weights"] = "none"
        backbone = make(name, options, shape, described["dim"])
        backbone.made = dict(described)
        return backbone


def make(name: str, options: Mapping, shape: Sequence[int], dim: int) -> Any:
    """`nearkin.models.make`, for which dim 0 means: without the last layer."""
    return models.make(name, options, shape, dim) if dim else without_head(name, options, shape)


def without_head(name: str, options: Mapping, shape: Sequence[int]) -> Any:
    """The backbone of this name, but for its last layer, which would be a random projection."""
    if options.get("head", "none") != "none":
        raise ValueError(f"wanted features, without a head, got head={options['head']}")
    backbone: Any = models.make(name, options, shape, dim=1)
    if isinstance(backbone.head, nn.Sequential):
        backbone.head[-1] = nn.Identity()
    else:
        backbone.head = nn.Identity()
    backbone.made = {**backbone.made, "dim": 0}
    return backbone


def join(features: Any, head: Any) -> Backbone:
    """One backbone of two: embedding = head(features(x))."""
    mean, std = getattr(features, "mean", (0.0,)), getattr(features, "std", (1.0,))
    joined = Backbone(features, head, mean, std)
    parts = {"features": description(features), "head": description(head)}
    if all(parts.values()):
        joined.made = {"name": "joined", **parts}
    return joined


def timm_description(model: Any) -> dict | None:
    """The description of an object of `timm.create_model`."""
    from timm.models import get_model_args

    architecture = model.pretrained_cfg.get("architecture")
    if not architecture:
        return None
    return {
        "name": "timm-object",
        "architecture": architecture,
        "arguments": get_model_args(model),
    }
