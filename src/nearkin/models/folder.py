"""A Model's folder: written whole, read strictly, without code; one line says what is wrong.

model.safetensors   the tensors; by timm's names where timm can build the Model from them
config.json         timm's, or architecture "nearkin"; the block "nearkin" holds metric, classes,
                    recipe, provenance, how the backbone is built, and SHA-256 of every file
preprocess.json     from a picture to the backbone's pixels; not of a Model that takes numbers
README.md           a card for people
golden/             eight pictures (or, of such a Model, items of numbers) and their embeddings
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from nearkin.budget import SPARE, Budget
from nearkin.extras import optional
from nearkin.files import parse_json, read_json, write_whole
from nearkin.models import assembly, golden, timm_layout
from nearkin.models.card import card
from nearkin.models.preprocess import Preprocessing
from nearkin.models.pretrained import fill
from nearkin.tensorfiles import parse_safetensors

if TYPE_CHECKING:
    from nearkin.models.model import Model

T = TypeVar("T")
FORMAT = 1
WEIGHTS, CONFIG, STEPS, CARD = "model.safetensors", "config.json", "preprocess.json", "README.md"
EMBEDDINGS = "golden/embeddings.safetensors"
BACKBONE = "how the backbone is built"
LARGEST = 2**26  # bytes of a config.json
LARGEST_ITEM = 10**9  # numbers of an item


def save(model: Model, path: Path) -> Path:
    """Write the folder; config.json, which vouches for the other files, comes last."""
    with optional():
        from safetensors.torch import save as packed

    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: wanted a folder for the Model, got a file")
    place = model.device
    model.backbone.to("cpu")
    try:
        described = description(model.backbone)
        layout = timm_layout.layout_of(model.backbone) if model.preprocessing else None
        config = (
            timm_layout.config_of(layout, model.backbone, model.preprocessing)
            if layout and model.preprocessing
            else None
        )
        names = layout.names if layout and config else {}
        held = model.backbone.state_dict()
        if other := [name for name, tensor in held.items() if not isinstance(tensor, Tensor)]:
            raise ValueError(f"{path}: the backbone's {other[0]!r} is no tensor, and is not saved")
        state = {
            names.get(name, name): tensor.detach().contiguous().clone()
            for name, tensor in held.items()
        }
        files = {WEIGHTS: packed(state, metadata={"format": "pt"})}
        if model.preprocessing:
            files[STEPS] = text(model.preprocessing.to_json())
            files |= {f"golden/{name}": drawn(draw) for name, draw in golden.DRAWINGS.items()}
        made = golden_tensors(model)
        if not made["embeddings"].isfinite().all():
            raise ValueError(f"{path}: the Model's embeddings are not finite, and it is not saved")
        files[EMBEDDINGS] = packed(made)
        files[CARD] = card(model, timm=config is not None).encode()
        block = {
            "format": FORMAT,
            "identity": model.identity,
            "metric": model.metric,
            "similarity": model.similarity_name,
            "dim": model.dim,
            "limit": model.limit,
            "shape": model.shape,
            "backbone": described,
            "timm": config is not None,
            "classes": list(model.classes),
            "recipe": model.recipe,
            "provenance": model.provenance,
            "files": {name: sha256(content) for name, content in files.items()},
        }
        block["seal"] = seal(block)
        plain = {"architecture": "nearkin", "num_classes": model.dim}
        files[CONFIG] = text({**(config or plain), "nearkin": block})
        parse_json(files[CONFIG], str(path / CONFIG))  # what cannot be read again is not written
    finally:
        model.backbone.to(place)
    (path / CONFIG).unlink(missing_ok=True)  # of an earlier Model: no longer true of what follows
    for name, content in files.items():
        write_whole(path / name, lambda file, content=content: file.write(content))
    return path


def refuse_files_of_others(path: Path) -> None:
    """A Model takes the place of an earlier one, or of one half written, and of nothing else."""
    half_written = (path / WEIGHTS).exists() and not (path / CONFIG).exists()
    if half_written or is_model(path):
        return
    for name in (CONFIG, STEPS, CARD, WEIGHTS):
        if (path / name).exists():
            raise ValueError(f"{path}: it holds a {name} of no Nearkin Model: take another folder")


def description(backbone: nn.Module) -> dict:
    """How the backbone is built again; of a class that Nearkin cannot build, its name alone."""
    described = assembly.description(backbone)
    if described and not hasattr(backbone, "made"):  # what its owner changed cannot be told
        same = shapes(assembly.assemble(described)) == shapes(backbone)
        described = described if same else None
    own = type(backbone)
    return described or {"name": "own", "class": f"{own.__module__}.{own.__qualname__}"}


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def golden_tensors(model: Model) -> dict[str, Tensor]:
    """The embeddings (8, D) of the golden pictures, or of eight items of numbers beside them."""
    if model.preprocessing:
        pixels = torch.stack([model.preprocessing.prepare(image) for image in golden.images()])
        return {"embeddings": next(model.stream(iter([pixels]), "cpu"))}
    items = golden.numbers(tuple(model.blank().shape[1:]))
    return {"embeddings": model.embed(items, device="cpu"), "items": items}


def refuse_changed_embeddings(model: Model, path: Path, contents: Mapping[str, bytes]) -> None:
    """Embed the golden items anew, and refuse a Model that does it otherwise than when saved."""
    saved = tensors(path, EMBEDDINGS, contents)
    names = [name for name in contents if name.startswith("golden/") and name != EMBEDDINGS]
    source: Any = [path / name for name in names] if model.preprocessing else saved.get("items")
    found = read(lambda: model.embed(source, device="cpu"), path, "golden/")
    golden.refuse_others(found, saved["embeddings"], path, names)


def load(path: Path, backbone: nn.Module | None = None, depth: int = 0) -> Model:
    """The Model of a folder, of an --out folder with one finished run, or of a backbone.pt.

    A head is joined to the Model that made its features, where that is found.

    Args:
        depth: of heads on features of heads, so that a circle ends.

    Raises:
        ValueError: see `Model.load`.
    """
    from nearkin.models import earlier, origin

    path = folder_of(path)
    if path.suffix == ".pt":
        return earlier.load(path)
    block = config_of(path)
    contents = {name: content(path, name, block["files"]) for name in expected(block)}
    preprocessing = None
    if STEPS in contents:
        steps = parse_json(contents[STEPS], f"{path / STEPS}")
        preprocessing = read(lambda: Preprocessing.from_json(steps), path, STEPS)
    model = built(path, block, contents, preprocessing, backbone)
    if model.identity != block["identity"]:
        raise ValueError(f"{path}: the weights, preprocessing or metric are not those saved")
    refuse_changed_embeddings(model, path, contents)
    made_by = model.provenance.get("made_by")
    if model.preprocessing or not isinstance(made_by, dict):
        return model
    return origin.joined(model, made_by, depth=depth)


def built(
    path: Path,
    block: Mapping[str, Any],
    contents: Mapping[str, bytes],
    preprocessing: Preprocessing | None,
    backbone: nn.Module | None,
) -> Model:
    """The Model, of whose files only the weights and the preprocessing have been read."""
    from nearkin.models.model import Model

    described = block["backbone"]
    if backbone is None and isinstance(described, dict) and described.get("name") == "own":
        raise ValueError(
            f"{path}: it holds the weights of the class {described.get('class')}, which "
            "Nearkin cannot build: give Model.load(DIR, backbone=an object of it)"
        )
    with Budget(4 * len(contents[WEIGHTS]) + SPARE, BACKBONE):  # whatever config.json says
        if backbone is None:
            network = read(lambda: assembly.assemble(described), path, BACKBONE)
        else:
            network = assembly.unwrapped(backbone)
    state = tensors(path, WEIGHTS, contents)
    kinds = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(kinds) == 1:
        network.to(kinds.pop())
    if block["timm"]:
        layout = timm_layout.layout_of(network)
        ours = {theirs: name for name, theirs in layout.names.items()} if layout else {}
        state = {ours.get(name, name): tensor for name, tensor in state.items()}
    fill(network, state, f"{path / WEIGHTS}")
    arguments = {
        name: block[name] for name in ("classes", "recipe", "provenance", "limit", "shape")
    }
    return read(lambda: Model(network, preprocessing, block["metric"], **arguments), path, CONFIG)


def folder_of(path: Path) -> Path:
    """The Model's folder (or old backbone.pt) that a path means."""
    if path.name in (CONFIG, WEIGHTS) and path.is_file():
        return path.parent
    if path.is_file() and path.suffix == ".pt":
        return path
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise ValueError(f"{path}: {what}; wanted a Model's folder")
    found = own_model(path)
    if found:
        return found
    finished = [one for run in sorted(path.glob("runs/*")) if (one := own_model(run))]
    if not finished:
        raise ValueError(f"{path}: no {CONFIG}: wanted a Model's folder, or --out of a run")
    if len(finished) > 1:
        names = [(f if f.is_dir() else f.parent).name for f in finished]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        raise ValueError(
            f"{path}: it holds {len(names)} finished runs; take one of {path / 'runs'}/ "
            f"{', '.join(names[:20])}{more}"
        )
    return finished[0]


def forget(path: Path) -> None:
    """Remove the Model from a run's folder; what else is there stays."""
    for name in (CONFIG, WEIGHTS):
        (path / name).unlink(missing_ok=True)


def is_model(path: Path) -> bool:
    """Whether a folder holds a Model of Nearkin, be it whole or not."""
    file = path / CONFIG
    return file.is_file() and file.stat().st_size <= LARGEST and b'"nearkin"' in file.read_bytes()


def own_model(path: Path) -> Path | None:
    """The folder itself, if it is a Model's, or the backbone.pt that an old run left in it."""
    if (path / CONFIG).is_file():
        return path
    old = path / "backbone.pt"
    return old if old.is_file() else None


def config_of(path: Path) -> dict[str, Any]:
    """The block "nearkin" of config.json, whole and of this version."""
    file = path / CONFIG
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file}: {file.stat().st_size:,} bytes are no config of a Model")
    found = read_json(file)
    block = found.get("nearkin") if isinstance(found, dict) else None
    if not isinstance(block, dict) or not isinstance(block.get("format"), int):
        raise ValueError(f"{file}: not the config of a Nearkin Model")
    if block["format"] > FORMAT:
        raise ValueError(
            f"{file}: made by a newer Nearkin, format {block['format']}; this one reads {FORMAT}"
        )
    sealed = block.pop("seal", None)
    if block.keys() != KEYS or sealed != seal(block) or not isinstance(block["files"], dict):
        raise ValueError(f"{file}: cut or changed since it was saved")
    for name, sound in SOUND.items():
        if not sound(block[name]):
            raise ValueError(f"{file}: {name} cannot be {block[name]!r:.60}")
    return block


KEYS = {"format", "identity", "metric", "similarity", "dim", "limit", "backbone", "timm", "classes"}
KEYS |= {"shape", "recipe", "provenance", "files"}


SOUND: dict[str, Callable[[Any], bool]] = {
    "metric": lambda value: isinstance(value, str),
    "timm": lambda value: isinstance(value, bool),
    "classes": lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value),
    "recipe": lambda value: isinstance(value, dict),
    "provenance": lambda value: isinstance(value, dict),
    "limit": lambda value: value is None or type(value) in (int, float),
    "shape": lambda value: value is None or is_shape(value),
    "files": lambda value: all(isinstance(x, str) for x in value.values()),
}
"""Parts of the block, and whether a value may be one; others are looked at where they are used."""


def is_shape(value: Any) -> bool:
    """Whether a JSON value is the shape of an item of numbers, which fits into memory."""
    sides = isinstance(value, list) and all(type(x) is int and x > 0 for x in value)
    return sides and 0 < len(value) <= 8 and prod(value) <= LARGEST_ITEM


def expected(block: Mapping[str, Any]) -> list[str]:
    """The files that a Model's folder must have beside config.json."""
    files = block["files"]
    pictures = sorted(name for name in files if re.fullmatch(r"golden/[\w-]+\.(png|jpg)", name))
    if len(pictures) != (len(golden.DRAWINGS) if STEPS in files else 0):
        pictures = [f"golden/{name}" for name in golden.DRAWINGS]
    return [WEIGHTS, *([STEPS, *pictures] if STEPS in files else []), EMBEDDINGS, CARD]


def content(path: Path, name: str, hashes: Mapping[str, str]) -> bytes:
    """A file's bytes, if they are those that were saved."""
    file = path / name
    if not file.is_file():
        raise ValueError(f"{path}: {name} is missing")
    found = file.read_bytes()
    if sha256(found) != hashes.get(name):
        raise ValueError(f"{path}: {name} is cut or changed since it was saved")
    return found


def tensors(path: Path, name: str, contents: Mapping[str, bytes]) -> dict[str, Tensor]:
    return parse_safetensors(contents[name], f"{path / name}")


def read(act: Callable[[], T], path: Path, name: str) -> T:
    """act(); what goes wrong in a stranger's file is a ValueError of one line that names it."""
    try:
        return act()
    except OSError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: {name}: {said}") from None


def text(found: Any) -> bytes:
    return (json.dumps(found, indent=2) + "\n").encode()


def seal(block: Mapping[str, Any]) -> str:
    """SHA-256 of the block, whatever the order of its keys and its white space."""
    return sha256(json.dumps(block, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def drawn(draw: Callable[[BytesIO], None]) -> bytes:
    file = BytesIO()
    draw(file)
    return file.getvalue()
