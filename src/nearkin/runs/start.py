"""The backbone that a run starts from: of a Model, of an old backbone.pt, or of another trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from nearkin import models
from nearkin.models import assembly
from nearkin.models.folder import is_model
from nearkin.models.model import Model
from nearkin.models.pretrained import fill, state_dict_in, without_classifier


def starting_backbone(path: Path, vectors: bool) -> Any:
    """The backbone of a Model's folder or of a backbone.pt; the head's, where the run's inputs are
    vectors and the Model is a head that was joined to what made them."""
    backbone = Model.load(path).backbone
    joined = (getattr(backbone, "made", None) or {}).get("name") == "joined"
    return (backbone.head if vectors else backbone.trunk) if joined else backbone


def whole_start(start: str, dim: int, vectors: bool) -> Any:
    """The backbone of `start` with its last layer, which must embed into `dim` dimensions."""
    whole = starting_backbone(Path(start).expanduser(), vectors)
    made = assembly.description(whole) or {}
    found = made["head"]["dim"] if made.get("name") == "joined" else made.get("dim")
    if found != dim:
        raise ValueError(
            f"dim is {dim}, but {start} embeds into {found} dimensions, and without training its "
            "last layer stays"
        )
    return whole


def load_start(backbone: Any, start: str, vectors: bool) -> None:
    """Put the trunk of `start` into the backbone's: of a Model, or a state dict of any trainer."""
    path = Path(start).expanduser()
    state = None if path.is_dir() or is_model(path.parent) else models.read(path)
    if state is None or {"name", "options", "state"} <= state.keys():
        source = starting_backbone(path, vectors)
        if not isinstance(getattr(source, "trunk", None), nn.Module):
            raise ValueError(f"{start}: its backbone has no trunk to start from")
        name = (assembly.description(source) or {}).get("name")
        fill(backbone.trunk, source.trunk.state_dict(), f"the trunk of a backbone {name!r}")
        return
    timm = getattr(backbone.trunk, "model", None)
    if timm is not None:
        fill(timm, without_classifier(timm, state, start), start)
        return
    found = state_dict_in(state, start)
    trunk = {k.removeprefix("trunk."): v for k, v in found.items() if k.startswith("trunk.")}
    fill(backbone.trunk, trunk or found, start)
