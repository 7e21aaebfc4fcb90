"""A Model in other forms: ONNX, torch.export, timm's folder; each checked on the golden pictures.

The exported graph takes prepared pictures (B, C, H, W) as uint8, what `Preprocessing.prepare`
makes, and gives embeddings (B, D): normalisation of the pixels is inside, and for the cosine
embeddings are unit vectors. What comes before (decoding, shrinking, cropping, resizing) is data,
in the file's metadata and in preprocess.json.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.files import write_whole

if TYPE_CHECKING:
    from nearkin.models.model import Model

OPSET = 18
LEAST = 0.9999
"""Cosine of an exported form's embeddings to the Model's: below it the form is refused."""


class Deployed(nn.Module):
    """A Model from prepared pixels (B, C, H, W) uint8 to embeddings (B, D) float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model):
        super().__init__()
        steps = pictures_of(model)
        self.backbone = model.backbone
        self.unit = model.metric == "cosine"
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(steps.mean).view(shape))
        self.register_buffer("std", torch.tensor(steps.std).view(shape))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.backbone((pixels.float() / 255 - self.mean) / self.std)
        return F.normalize(x, dim=1) if self.unit else x


def export(model: Model, path: Path, form: str = "onnx") -> Path:
    """Write the Model in another form, and check that it embeds the golden pictures alike.

    Args:
        form: onnx (one file, dynamic batch), pt2 (torch.export), or timm (a folder that
            `timm.create_model("local-dir:DIR", pretrained=True)` reads).

    Raises:
        ValueError: the form embeds a golden picture at a cosine below 0.9999, or timm has no
            model of this shape.
    """
    forms: dict[str, Callable[[Model, Path], None]] = {
        "onnx": to_onnx,
        "pt2": to_torch_export,
        "timm": to_timm,
    }
    if form not in forms:
        raise ValueError(f"format must be one of {', '.join(forms)}, got {form!r}")
    forms[form](model, path)
    return path


def to_onnx(model: Model, path: Path) -> None:
    """One ONNX file; its metadata hold identity, metric and preprocessing."""
    import onnx

    program = quietly_exported(model)
    proto = program.model_proto
    facts = {
        "identity": model.identity,
        "metric": model.metric,
        "preprocessing": json.dumps(pictures_of(model).to_json()),
    }
    onnx.helper.set_model_props(proto, {f"nearkin.{name}": value for name, value in facts.items()})
    content = proto.SerializeToString()
    refuse_others(model, run_onnx(content), "onnx")
    write_whole(path, lambda file: file.write(content))


def quietly_exported(model: Model) -> Any:
    """torch's ONNX program, without what the exporter prints."""
    module = Deployed(model).eval().to("cpu")
    example = torch.stack([pixels for pixels, _ in golden_items(model)][:2])
    batch = torch.export.Dim("batch")
    with without_words():
        return torch.onnx.export(
            module,
            (example,),
            input_names=["pixels"],
            output_names=["embeddings"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )


def to_torch_export(model: Model, path: Path) -> None:
    """A torch.export program (.pt2)."""
    module = Deployed(model).eval().to("cpu")
    example = torch.stack([pixels for pixels, _ in golden_items(model)][:2])
    with without_words():
        program = torch.export.export(
            module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    refuse_others(model, lambda x: program.module()(torch.from_numpy(x)).detach().numpy(), "pt2")
    write_whole(path, lambda file: torch.export.save(program, file))


def to_timm(model: Model, path: Path) -> None:
    """The Model's own folder, where it is one that timm reads."""
    from nearkin.models.timm_layout import layout_of

    if model.preprocessing is None or layout_of(model.backbone) is None:
        raise ValueError("timm has no model of this shape: its head must be one linear layer")
    model.save(path)


def run_onnx(content: bytes | str) -> Callable[[np.ndarray], np.ndarray]:
    """What an ONNX file makes of pixels, by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(["embeddings"], {"pixels": pixels})[0])


def refuse_others(model: Model, run: Callable[[np.ndarray], np.ndarray], form: str) -> None:
    """Refuse a form whose embeddings of the golden pictures are not the Model's."""
    items = list(golden_items(model))
    pixels = torch.stack([pixels for pixels, _ in items])
    with torch.no_grad():
        wanted = Deployed(model).eval().to("cpu")(pixels).numpy()
    for count in (1, len(items)):  # a batch that was frozen would show
        found = run(pixels[:count].numpy())
        scale = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted[:count], axis=1)
        cosine = (found * wanted[:count]).sum(1) / np.maximum(scale, 1e-30)
        worst = int(cosine.argmin())
        if not cosine[worst] >= LEAST:
            raise ValueError(
                f"the {form} form embeds golden/{items[worst][1]} at a cosine of "
                f"{cosine[worst]:.5f} to the Model, wanted {LEAST} or more"
            )


def golden_items(model: Model) -> Iterator[tuple[Tensor, str]]:
    """Prepared pixels (C, H, W) of each golden picture, and its name."""
    from nearkin.models.golden import DRAWINGS, images

    for name, image in zip(DRAWINGS, images(), strict=True):
        yield pictures_of(model).prepare(image), name


def pictures_of(model: Model) -> Any:
    """The preprocessing of a Model of pictures; one of vectors is refused."""
    if model.preprocessing is None:
        raise ValueError("wanted a Model of pictures, got one of vectors: join it to its backbone")
    return model.preprocessing


@contextmanager
def without_words() -> Iterator[None]:
    """torch's exporters warn of what they themselves do."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
