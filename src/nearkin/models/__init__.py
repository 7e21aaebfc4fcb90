"""Backbones: pictures or features in, embeddings out.

Every backbone is an nn.Module with a `trunk` and a `head`: embedding = head(trunk(x)). The head is
the last layer, the one that makes the embedding, so that the trunk can be kept while the head is
replaced (transfer), frozen, or trained at a rate of its own. `mean` and `std` are what it wants
taken out of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature

from torch import Tensor

from nearkin.budget import SPARE, Budget, to_train
from nearkin.models.features import Backbone
from nearkin.models.network import Network
from nearkin.models.pretrained import fill, is_pretrained, model_of, refuse_unknown, tensors
from nearkin.models.pretrained import read as read
from nearkin.names import arguments, construct, look_up, parameters_of
from nearkin.registry import BACKBONES


def make(name: str, options: Mapping, input_shape: Sequence[int], dim: int) -> Network | Backbone:
    """The backbone of this name, for inputs of this shape: (C, H, W) pictures or (F,) features.

    >>> make("mlp", {"hidden": 8}, (1280,), 64).head
    Linear(in_features=8, out_features=64, bias=True)
    """
    build = partial(builder(name), tuple(input_shape), dim)
    with to_train(f"backbone {name!r}"):
        backbone = construct(build, options, f"option of backbone {name!r}")
    backbone.made = {
        "name": name,
        "options": dict(options),
        "input_shape": list(input_shape),
        "dim": dim,
    }
    return backbone


def builder(name: str) -> Callable[..., Network | Backbone]:
    """(input_shape, dim, **options) -> backbone."""
    kind, _, model = name.partition(":")
    build = look_up(kind, BACKBONES, "backbone")
    if (kind == "timm") != bool(model):
        raise ValueError(f"backbone {name!r}: wanted {'timm:NAME' if kind == 'timm' else kind}")
    return partial(build, model) if model else build


def parameters(name: str) -> dict[str, Parameter]:
    """The options of the backbone of this name, with their defaults; none where there is none.

    >>> parameters("mlp")["hidden"].default
    0
    """
    try:
        return parameters_of(partial(builder(name), (), 0))
    except ValueError:
        return {}


def check(name: str, options: Mapping) -> None:
    """A ValueError where the name or an option of a backbone is wrong; nothing is built.

    >>> check("mlp", {"hiden": 8})
    Traceback (most recent call last):
    ValueError: unknown option of backbone 'mlp' 'hiden': did you mean 'hidden'? Valid: hidden, ...
    """
    given = arguments(partial(builder(name), (), 0), options, f"option of backbone {name!r}")
    if is_pretrained(name):
        chosen = {} if ":" in name else {"weights": name}
        refuse_unknown(model_of(name), **{**chosen, **given})


def describe(backbone: Network | Backbone) -> dict:
    """A backbone of `make` as plain data and tensors: how it was made, and what it has learnt.

    `torch.save` keeps this, and `read` reads it without running code.
    """
    return {**backbone.made, "state": backbone.state_dict()}


def rebuild(description: Mapping) -> Network | Backbone:
    """The backbone that was described; no weights but those of the description are looked for."""
    name, options, shape, dim, state = parts_of(description)
    if "weights" in signature(builder(name)).parameters:
        options = {**options, "weights": "none"}
    held = sum(tensor.nbytes for tensor in state.values() if isinstance(tensor, Tensor))
    with Budget(4 * held + SPARE, f"the checkpoint of a backbone {name!r}"):
        backbone = make(name, options, shape, dim)
    fill(backbone, state, f"the checkpoint of a backbone {name!r}")
    backbone.made = {key: value for key, value in description.items() if key != "state"}
    return backbone


def load_trunk(backbone: Network | Backbone, description: Mapping) -> None:
    """Transfer: put the described backbone's trunk into this one, whose head stays as it is."""
    name, _, _, _, state = parts_of(description)
    trunk = {k.removeprefix("trunk."): v for k, v in state.items() if k.startswith("trunk.")}
    fill(backbone.trunk, trunk, f"the trunk of a backbone {name!r}")


def parts_of(description: Mapping) -> list:
    """name, options, input_shape, dim and state, or a ValueError for what is no backbone."""
    keys = ("name", "options", "input_shape", "dim", "state")
    if not isinstance(description, Mapping) or set(description) != set(keys):
        raise ValueError(f"not the checkpoint of a backbone: wanted {', '.join(keys)}")
    name, options, shape, dim, state = (description[key] for key in keys)
    plain = isinstance(options, Mapping) and all(isinstance(key, str) for key in options)
    sides = isinstance(shape, list | tuple) and all(
        type(side) is int and side > 0 for side in shape
    )
    if not (isinstance(name, str) and plain and sides and shape and type(dim) is int and dim > 0):
        raise ValueError(
            "not the checkpoint of a backbone: wanted a name, options, a shape and a dim, got "
            f"{name!r:.40}, {options!r:.40}, {shape!r:.40} and {dim!r:.40}"
        )
    return [name, options, shape, dim, tensors(state, f"the checkpoint of a backbone {name!r}")]
