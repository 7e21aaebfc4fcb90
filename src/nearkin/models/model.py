"""A Model: a backbone with the preprocessing and the metric that its embeddings were made for.

Dimensions: N items, F features, D embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearkin import notebook
from nearkin.data.photographs import stored_side
from nearkin.data.transforms import normalised
from nearkin.extras import PACKAGED, optional
from nearkin.models import assembly, folder, inputs, precision
from nearkin.models.features import Backbone
from nearkin.models.network import Network
from nearkin.models.preprocess import Preprocessing, photographs_at
from nearkin.names import look_up
from nearkin.tensors import usable

BATCH = 64


class Model:
    """An embedder: pictures of any kind in, embeddings out, and how near two embeddings are.

        model = nk.Model.load("out/runs/HASH")
        x = model.embed(["a.jpg", "b.jpg"])         # (2, D) float32
        model.similarity(x, x)                      # (2, 2), the larger the nearer

    Args:
        backbone: an nn.Module, pixels (B, C, H, W) or features (B, F) to embeddings (B, D); it is
            put into evaluation mode.
        preprocessing: from pictures to the backbone's pixels; None: the Model takes numbers as
            they are.
        metric: of the embeddings: cosine, inner or euclidean.
        classes: names of the classes that it was trained on.
        recipe: every choice of its training, as plain data.
        provenance: what else is known of it, as plain data: the row's metrics, data, versions.
        limit: the largest |number| in an embedding that int8 keeps, for inner and euclidean.
        shape: of an item of numbers, where there is no preprocessing; None: (F,), as the backbone
            tells it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        preprocessing: Preprocessing | None = None,
        metric: str = "cosine",
        *,
        classes: Sequence[str] = (),
        recipe: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        limit: float | None = None,
        shape: Sequence[int] | None = None,
    ):
        look_up(metric, precision.SIMILARITIES, "metric")
        self.backbone: Any = assembly.unwrapped(backbone).eval()
        self.preprocessing = preprocessing
        self.metric = metric
        self.classes = tuple(classes)
        self.recipe = dict(recipe or {})
        self.provenance = dict(provenance or {})
        self.limit = limit
        known = preprocessing is None and features_of(self.backbone)
        self.shape = tuple(shape) if shape else (features_of(self.backbone),) if known else None
        self.refusal = ""  # why a Model that takes vectors takes no pictures, where that is known
        self._dim: int | None = None

    @classmethod
    def load(cls, path: str | Path, backbone: nn.Module | None = None) -> Model:
        """The Model of a folder that `save` wrote, of an --out folder with one finished run, or of
        a `backbone.pt` of Nearkin 0.1.

        Args:
            backbone: an object of the own class that the Model was saved from, with any weights;
                files hold no code, so that Nearkin cannot make one.

        Raises:
            ValueError: the folder is cut, tampered with, made by a newer version, or embeds its
                golden pictures otherwise here than where it was saved.
        """
        return folder.load(Path(path).expanduser(), backbone)

    @classmethod
    def pretrained(cls, name: str, size: int = 0, **options: Any) -> Model:
        """A backbone as its authors trained it, without a head: lite0, lite2 or timm:NAME.

        Args:
            size: side of the pictures in pixels; 0: that of the pretraining.
            options: of the backbone, such as weights=FILE or pool="gem".
        """
        side = size or pretraining_side(name)
        backbone = assembly.make(name, options, (3, side, side), dim=0)
        preprocessing = photographs_at(side, mean=backbone.mean, std=backbone.std)
        return cls(backbone, preprocessing)

    def save(self, path: str | Path) -> Path:
        """Write the Model's folder: model.safetensors, config.json, preprocess.json, README.md and
        golden/. `timm.create_model("local-dir:DIR", pretrained=True)` reads it too, wherever the
        head is one linear layer on timm's pooling.

        Raises:
            ValueError: a file of one of these names is there, and of no Model.
        """
        folder.refuse_files_of_others(Path(path).expanduser())
        return folder.save(self, Path(path).expanduser())

    def embed(
        self,
        source: Any,
        *,
        batch: int = BATCH,
        device: str = "auto",
        truncate: int | None = None,
        precision: str = "float32",
    ) -> Tensor:
        """Embeddings (N, D) float32 on the CPU, in the order of the source.

        Args:
            source: paths, PIL images, arrays (H, W, C) or (N, H, W, C), tensors (C, H, W) or
                (N, C, H, W), a Dataset, a DataLoader or a Split; vectors (N, F) where a head on
                features is known. Whole numbers are 0..255, floats are 0..1.
            batch: items at a time.
            device: cpu, cuda, cuda:N, or auto.
            truncate: keep the first so many numbers of each embedding.
            precision: float32, float16, int8, or binary (packed bits, uint8). Measured on CUB's
                features, R@1 in %: 56.7, 56.7, 56.6, 51.9 (LOG.md, 2026-11-29).
        """
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch must be a whole number of 1 or more, got {batch!r}")
        try:
            batches = inputs.batches(source, batch, self.preprocessing, self.shape)
            rows = list(self.stream(batches, device))
        except inputs.NoPictures as error:
            more = f"; {self.refusal}" if self.refusal else ""
            raise inputs.NoPictures(f"{error}{more}") from None
        x = torch.cat(rows) if rows else torch.empty(0, self.dim)
        return self.shortened(x, truncate, precision)

    def embed_prepared(self, pixels: Tensor, device: str = "auto") -> Tensor:
        """Embeddings (N, D) float32, on the CPU, of pictures that `preprocessing.prepare` has made:
        (N, C, H, W) uint8. `embed` would crop them once more."""
        return next(self.stream(iter([pixels]), device))

    def stream(self, batches: Iterator[Tensor], device: str = "auto") -> Iterator[Tensor]:
        """The embeddings (B, D) float32 of each of `inputs.batches`, on the CPU."""
        place = torch.device(usable(device))
        for items in batches:
            self.backbone.eval().to(place)
            try:
                with torch.no_grad():
                    x = self.embedded(items.to(place))
            except AssertionError as error:  # timm's, of a size that is not that of the training
                raise ValueError(
                    f"the backbone cannot take {tuple(items.shape)}: {error}"
                ) from None
            if x.ndim != 2:
                raise ValueError(f"wanted embeddings (B, D) of the backbone, got {tuple(x.shape)}")
            yield x.float().cpu()

    def embedded(self, items: Tensor) -> Tensor:
        """What the backbone, or a head alone, makes of a batch."""
        if items.ndim == 2:
            return self.head_on(items)(items.to(self.dtype))
        if self.preprocessing is None:
            return self.backbone(items.to(self.dtype))
        return self.backbone(self.normalised(items))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Prepared pictures (B, C, H, W) uint8 as floats of the backbone's precision."""
        assert self.preprocessing is not None
        x = normalised(pixels, self.preprocessing.mean, self.preprocessing.std)
        return x.to(self.dtype, memory_format=memory_format(self.backbone))

    def head_on(self, vectors: Tensor) -> nn.Module:
        """What embeds vectors (B, F): the head on stored features, where the Model has one."""
        head = self.backbone if self.preprocessing is None else joined_head(self.backbone)
        if head is None:
            raise ValueError(
                f"wanted pictures, got vectors {tuple(vectors.shape)}: this Model has no head on "
                "stored features"
            )
        wanted = features_of(head)
        if wanted and vectors.shape[1] != wanted:
            raise ValueError(f"wanted vectors of {wanted} numbers, got {vectors.shape[1]}")
        return head

    def shortened(self, x: Tensor, truncate: int | None, kind: str) -> Tensor:
        """Embeddings (N, D) with fewer dimensions, in another precision."""
        x = precision.truncated(x, truncate)
        if kind == "int8" and self.metric != "cosine" and self.limit is None:
            raise ValueError(
                f"int8 of a {self.metric} Model wants model.limit, the largest |number| to keep"
            )
        return precision.quantised(x, kind, None if self.metric == "cosine" else self.limit)

    def similarity(self, a: Any, b: Any) -> Tensor:
        """Similarities (N, M) of two sets of embeddings, the larger the nearer: by the Model's
        metric the cosine, the inner product, or minus the Euclidean distance. Both sets in one
        precision; of binary ones the cosine of the signs."""
        return precision.similarity(a, b, self.metric, self.dim, self.limit)

    @property
    def similarity_name(self) -> str:
        """What `similarity` gives, in words."""
        return precision.SIMILARITIES[self.metric]

    @property
    def dim(self) -> int:
        """D, the size of the embeddings."""
        if self._dim is None:
            self._dim = next(self.stream(iter([self.blank()]), self.device)).shape[1]
        return self._dim

    @property
    def device(self) -> str:
        """Where the backbone is."""
        return str(next((p.device for p in self.backbone.parameters()), torch.device("cpu")))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the backbone's weights."""
        floats = (p.dtype for p in self.backbone.parameters() if p.is_floating_point())
        return next(floats, torch.float32)

    def blank(self) -> Tensor:
        """One black picture, or one item of zeros."""
        if self.preprocessing is None:
            if self.shape is None:
                raise ValueError("a Model of numbers needs the shape of an item: Model(shape=(F,))")
            return torch.zeros(1, *self.shape)
        shape = self.preprocessing.channels, self.preprocessing.height, self.preprocessing.width
        return torch.zeros(1, *shape, dtype=torch.uint8)

    @property
    def identity(self) -> str:
        """16 hex digits of the weights, the preprocessing and the metric, and of nothing else."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.backbone.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().data)
        steps = self.preprocessing and self.preprocessing.identity()
        digest.update(json.dumps([steps, self.metric], sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def join(self, head: Model) -> Model:
        """The Model of a head that was trained on this Model's features: it takes photographs.

        The metric, the classes and the rest are the head's.
        """
        if self.preprocessing is None or head.preprocessing is not None:
            raise ValueError("wanted a Model of pictures, and a head on its features to join it")
        if head.shape not in (None, (self.dim,)):
            wanted = features_of(head.backbone)
            raise ValueError(f"the head takes {wanted} features, the backbone makes {self.dim}")
        return Model(
            assembly.join(self.backbone, head.backbone),
            self.preprocessing,
            head.metric,
            classes=head.classes,
            recipe=head.recipe,
            provenance=head.provenance,
            limit=head.limit,
        )

    def with_metric(self, metric: str) -> Model:
        """The same backbone under another metric."""
        other = Model(self.backbone, self.preprocessing, metric, classes=self.classes)
        other.recipe, other.provenance, other.limit = self.recipe, self.provenance, self.limit
        other.shape = self.shape
        return other

    def at_size(self, size: int) -> Model:
        """The same Model for pictures of another side in pixels."""
        if self.preprocessing is None:
            raise ValueError("a Model of vectors has no size in pixels")
        short_side = stored_side(size) if self.preprocessing.short_side else 0
        changed = replace(self.preprocessing, height=size, width=size, short_side=short_side)
        other = self.with_metric(self.metric)
        other.preprocessing = changed
        return other

    def __repr__(self) -> str:
        made = assembly.description(self.backbone)
        name = made["name"] if made else type(self.backbone).__name__
        p = self.preprocessing
        shape = "x".join(map(str, self.shape or "?"))
        takes = f"pictures of {p.width} x {p.height}" if p else f"numbers {shape}"
        return (
            f"Model({name}, {takes} -> {self.dim}-D, {self.similarity_name}, "
            f"identity {self.identity})"
        )

    def _repr_html_(self) -> str:
        p, tried = self.preprocessing, (self.provenance.get("metrics") or {}).get("last") or {}
        made = assembly.description(self.backbone)
        return notebook.facts(
            "Model",
            [
                ("backbone", made["name"] if made else type(self.backbone).__name__),
                ("takes", f"pictures of {p.width} x {p.height}" if p else "numbers"),
                ("embedding", f"{self.dim} numbers"),
                ("similarity", self.similarity_name),
                ("trained on", f"{len(self.classes):,} classes" if self.classes else None),
                ("R@1 on test", notebook.share(tried.get("recall@1"))),
                ("identity", self.identity),
            ],
        )


def find(name: str | Path, size: int = 0) -> Model:
    """The Model that a word means: a folder or file that `Model.load` takes, or lite0, lite2,
    timm:NAME.

    Args:
        size: side of the pictures in pixels; 0: the Model's own.
    """
    if Path(name).expanduser().exists():
        model = Model.load(name)
        return model.at_size(size) if size else model
    kind = str(name).partition(":")[0]
    if kind not in (*PACKAGED, "timm"):
        raise ValueError(
            f"{name}: no such folder or file, and no pretrained backbone (lite0, lite2, timm:NAME)"
        )
    return Model.pretrained(str(name), size)


def joined_head(backbone: Any) -> Any:
    """The head of a backbone that was joined of two; None of any other."""
    two = isinstance(backbone, Backbone) and isinstance(backbone.trunk, Backbone)
    return backbone.head if two else None


def features_of(head: Any) -> int:
    """F, the numbers of a vector that a head takes; 0 where that is not known."""
    shape = (getattr(head, "made", None) or {}).get("input_shape", ())
    if len(shape) == 1:
        return int(shape[0])
    linear = next((m for m in head.modules() if isinstance(m, nn.Linear)), None)
    return linear.in_features if linear is not None else 0


def memory_format(backbone: nn.Module) -> torch.memory_format:
    """Channels last, for which convolutions are twice as fast on a CPU; of an own class, which may
    call `view`, as torch has it."""
    known = isinstance(backbone, Backbone | Network) or hasattr(backbone, "pretrained_cfg")
    return torch.channels_last if known else torch.contiguous_format


def pretraining_side(name: str) -> int:
    """The side in pixels of the pictures that a backbone was pretrained on."""
    with optional():
        import timm

    kind, _, model = name.partition(":")
    if kind not in (*PACKAGED, "timm") or (kind == "timm") != bool(model):
        raise ValueError(f"pretrained wanted lite0, lite2 or timm:NAME, got {name!r}")
    known = model or PACKAGED[kind]
    if not timm.is_model(known):
        raise ValueError(f"unknown model timm:{known}")
    found = timm.models.get_pretrained_cfg(known)
    return int(found.input_size[-1]) if found else 224
