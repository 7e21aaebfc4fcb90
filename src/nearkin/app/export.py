"""`nearkin export` and `nearkin check`: a Model in other forms, and whether they still agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from nearkin.models.model import Model

ENDINGS = {"onnx": ".onnx", "pt2": ".pt2", "timm": "-timm"}


def export(
    model: Positional[str],
    format: Literal["onnx", "pt2", "timm"] = "onnx",
    output: Path | None = None,
) -> None:
    """Write a Model in another form, checked on its golden pictures.

    The graph takes prepared pixels (B, C, H, W) as uint8 and gives embeddings (B, D), unit vectors
    where the metric is the cosine. Its metadata tell how to prepare a picture.

    Example: nearkin export grocery --format onnx

    Args:
        model: a Model's folder, an --out folder with one finished run, or a pretrained backbone.
        format: onnx, pt2 (torch.export), or timm (a folder for timm.create_model).
        output: what to write; by default the Model's name with the form's ending.
    """
    from nearkin.search.export import export as write

    opened = open_model(model)
    path = output or Path(f"{model.rstrip('/').replace(':', '-')}{ENDINGS[format]}")
    if path.exists():
        raise ValueError(f"{path} exists already: name another --output")
    write(opened, path, format)
    print(f"{path}: {opened!r}, equal on the golden pictures")


def check(model: Positional[str]) -> None:
    """Embed a Model's golden pictures in every runtime at hand, and refuse one that differs.

    Example: nearkin check grocery

    Args:
        model: a Model's folder, an --out folder with one finished run, or a pretrained backbone.
    """
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from nearkin.search.export import export as write

    opened = open_model(model)
    print(f"torch: {opened!r}")
    forms = {"pt2": True, "onnx": bool(find_spec("onnxruntime") and find_spec("onnxscript"))}
    with TemporaryDirectory() as folder:
        for form, there in forms.items():
            if there:
                write(opened, Path(folder) / f"model{ENDINGS[form]}", form)
            print(f"{form}: {'equal' if there else 'not installed: pip install nearkin[search]'}")


def open_model(name: str) -> Model:
    """The Model of a folder, or a pretrained backbone by name."""
    from nearkin.models.model import Model

    return Model.load(name) if Path(name).expanduser().exists() else Model.pretrained(name)
