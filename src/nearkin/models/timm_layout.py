"""timm's names for a Model's tensors, where timm alone can build the Model from them.

`timm.create_model("local-dir:DIR", pretrained=True)` then gives the same bits: it can wherever the
head is one linear layer (or none) on timm's own pooling.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.files import read_json
from nearkin.models.features import Backbone
from nearkin.models.preprocess import Preprocessing


@dataclass(frozen=True)
class Layout:
    """A backbone as timm has it: the model of timm inside, and the size of the head on it.

    dim: D, numbers in an embedding; 0 of a model without a head.
    names: of each tensor, ours -> timm's.
    """

    model: Any
    dim: int
    names: Mapping[str, str]


def layout_of(backbone: nn.Module) -> Layout | None:
    """How timm names the tensors of a backbone; None where its names cannot be timm's."""
    if hasattr(backbone, "pretrained_cfg"):
        same = {name: name for name in backbone.state_dict()}
        return Layout(backbone, int(backbone.num_classes), same)  # type: ignore[arg-type]
    features, below, above = backbone, "", ""
    head = last_layer(getattr(backbone, "head", None))
    if isinstance(backbone, Backbone) and isinstance(backbone.trunk, Backbone):  # a joined one
        features, below, above = backbone.trunk, "trunk.", "head."
        if not isinstance(last_layer(features.head), nn.Identity):
            return None
        head = last_layer(backbone.head.head) if is_flat(backbone.head) else None
    trunk: Any = getattr(features, "trunk", None)
    model = getattr(trunk, "model", None)
    own = isinstance(getattr(trunk, "pool", None), nn.Identity)
    own = own and not trunk.bgr and trunk.levels == 1
    if model is None or head is None or not own:
        return None
    classifier = model.pretrained_cfg.get("classifier")
    if not isinstance(classifier, str):
        return None
    names = {f"{below}trunk.model.{name}": name for name in model.state_dict()}
    ours = [name for name in backbone.state_dict() if name not in names]
    if isinstance(head, nn.Linear):
        wanted = {name: f"{classifier}.{name.rpartition('.')[2]}" for name in ours}
        if not all(name.startswith(above or "head.") for name in ours):
            return None
        return Layout(model, head.out_features, names | wanted)
    return None if ours else Layout(model, 0, names)


def last_layer(head: Any) -> nn.Module | None:
    """The linear layer (or none, as nn.Identity) that a head is; None of any other head."""
    layers = [head] if not isinstance(head, nn.Sequential) else list(head)
    rest = [layer for layer in layers if not isinstance(layer, nn.Identity | nn.Flatten)]
    if not rest:
        return nn.Identity()
    return rest[0] if len(rest) == 1 and isinstance(rest[0], nn.Linear) else None


def is_flat(head: Any) -> bool:
    """Whether a head on features has no hidden layer."""
    return isinstance(getattr(head, "trunk", None), nn.Flatten)


def config_of(
    layout: Layout, backbone: nn.Module, preprocessing: Preprocessing
) -> dict[str, Any] | None:
    """timm's config.json of a backbone; None where timm's model does not give the same bits."""
    import timm
    from timm.models import get_model_args
    from timm.models._hub import save_config_for_hf

    arguments: dict[str, Any] = get_model_args(layout.model) | {"num_classes": layout.dim}
    architecture = layout.model.pretrained_cfg["architecture"]
    state = {name: backbone.state_dict()[ours] for ours, name in layout.names.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            model: Any = timm.create_model(architecture, pretrained=False, **arguments)
        model.load_state_dict(state)
        if not gives_the_same(model.eval(), backbone, preprocessing):
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            save_config_for_hf(model, str(path), data_config=data_config(preprocessing))
            return read_json(path)
    except (RuntimeError, TypeError, ValueError, AttributeError):  # timm builds another one
        return None


def gives_the_same(model: nn.Module, backbone: nn.Module, preprocessing: Preprocessing) -> bool:
    """Whether timm's model and the backbone agree to the bit on two pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, preprocessing.height, preprocessing.width)
    x = torch.randn(shape, generator=generator).to(next(backbone.parameters()).device)
    with torch.no_grad():
        ours: Tensor = backbone(x).cpu()
        return torch.equal(model.to(x.device)(x).cpu(), ours)


def data_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """The preprocessing as timm's transforms can come near it; preprocess.json has it exactly."""
    three = 3 if len(preprocessing.mean) == 1 else 1
    return {
        "input_size": (3, preprocessing.height, preprocessing.width),
        "mean": preprocessing.mean * three,
        "std": preprocessing.std * (3 // len(preprocessing.std)),
        "crop_pct": preprocessing.crop or 1.0,
        "crop_mode": "center" if preprocessing.crop else "squash",
        "interpolation": "bilinear",
    }
