"""`nk.Embedding`: a transformer of scikit-learn, trained by `nk.fit`.

Dimensions: N items, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from nearkin.labels import classes_for_sklearn, for_sklearn, plain_labels
from nearkin.models.model import Model
from nearkin.runs.fit import fit

WANTED = "y must be whole numbers or names, one an item"
SEEDS = 2**31 - 1  # what random_state draws the seed from


class Embedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer of vectors (N, F) to embeddings (N, D) in which near means of one class.

        pipe = make_pipeline(StandardScaler(), nk.Embedding(dim=16), KNeighborsClassifier())
        GridSearchCV(pipe, {"embedding__loss": ["contrastive", "normalised-cross-entropy"]})

    Args:
        dim: D; an own module has its own.
        loss: a name, or an nn.Module, of which each `fit` trains a copy.
        loss_options: of a loss by name.
        backbone: "linear", "mlp", another name, or an nn.Module on vectors, of which each `fit`
            trains a copy.
        backbone_options: of a backbone by name.
        epochs: passes over the items.
        batch: items a batch, at most all.
        lr: learning rate.
        settings: more fields of a recipe, such as {"sampler": "classes", "per_class": 4}.
        random_state: of weights and batches: an int, a RandomState, or None for NumPy's own.
        device: cpu, cuda or auto.

    Attributes:
        model_: the `nk.Model`.
        classes_: (C,) the classes that it was trained on.

    >>> x = np.array([[0.0, 0], [0, 1], [9, 0], [9, 1]])
    >>> Embedding(dim=1, epochs=1, random_state=0).fit(x, ["a", "a", "b", "b"]).transform(x).shape
    (4, 1)
    """

    def __init__(
        self,
        dim: int = 64,
        loss: str | nn.Module = "normalised-cross-entropy",
        *,
        loss_options: Mapping[str, Any] | None = None,
        backbone: str | nn.Module = "linear",
        backbone_options: Mapping[str, Any] | None = None,
        epochs: int = 20,
        batch: int = 128,
        lr: float = 1e-3,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
        device: str = "cpu",
    ):
        self.dim = dim
        self.loss = loss
        self.loss_options = loss_options
        self.backbone = backbone
        self.backbone_options = backbone_options
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.settings = settings
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Train on items X (N, F) with classes y (N,): whole numbers, text or bytes."""
        X, y = for_sklearn(X, "X must be numbers"), classes_for_sklearn(y, WANTED)
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        labels = plain_labels(y, WANTED)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(f"Embedding wants two classes or more, got {len(self.classes_)} class")
        settings: dict[str, Any] = {
            "sampler": "random",
            "batch": min(self.batch, len(X)),
            "epochs": self.epochs,
            "lr": self.lr,
            "seed": int(check_random_state(self.random_state).randint(SEEDS)),
        }
        if isinstance(self.backbone, str):
            settings |= {"dim": self.dim, "backbone_options": dict(self.backbone_options or {})}
        if isinstance(self.loss, str):
            settings["loss_options"] = dict(self.loss_options or {})
        settings |= self.settings or {}
        self.model_: Model = fit(
            copied(self.backbone),
            copied(self.loss),
            torch.from_numpy(np.ascontiguousarray(X)),
            labels,
            device=self.device,
            **settings,
        )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embeddings (N, D) float32 of items X (N, F)."""
        check_is_fitted(self)
        X = for_sklearn(X, "X must be numbers")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        x = torch.from_numpy(np.ascontiguousarray(X))
        return self.model_.embed(x, device=self.device, batch=4096).numpy()

    @property
    def _n_features_out(self) -> int:
        return self.model_.dim

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if tags.transformer_tags:
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def copied(part: str | nn.Module) -> str | nn.Module:
    """A module's copy, so that a parameter of the estimator stays as it was given."""
    return part if isinstance(part, str) else deepcopy(part)
