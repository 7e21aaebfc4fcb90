"""A loss on embeddings cut short, so that their first numbers alone can be searched.

Dimensions: B batch, D embedding, d the first d of the D numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, at_least, peer_names
from nearkin.losses.protocol import metric_of, rates_of, start_epoch, takes_references, wants_of
from nearkin.names import unknown

INNER = "triplet"
LEAST = 8
"""The shortest cut where none are named."""


@peer_names
class Matryoshka(nn.Module):
    """One loss on the first d numbers of the embeddings, for several d.

        loss = sum over d of   w_d L_d(x[:, :d], y)

    A loss with proxies or classifiers has one set of them for each d. `nk.Model.embed(truncate=d)`
    cuts embeddings likewise.

    Measured by `python examples/matryoshka.py`: R@1 in % of the first d of 64 numbers, mnist-5k, 8
    epochs, the mean of 3 seeds.

        d                      64     32     16      8      4      2
        triplet              97.4   97.4   96.9   96.4   91.8   68.5
        matryoshka of it     97.8   97.8   97.9   98.0   96.9   89.4

    Source: Kusupati et al., Matryoshka representation learning, NeurIPS 2022, eq. 1, whose weights
    are 1. Differs: any loss, where theirs are classifiers.

    Args:
        loss: a name of `nearkin.losses.LOSSES`; a function d -> loss; or a loss without parameters
            and state, which then serves every d.
        dims: each d, separated by commas, or as numbers; "" for D, D/2, D/4, ... down to 8.
        weights: w_d, in the order of dims; "" for 1 each.
        classes, dim: number of training classes; D.
        options: NAME.OPTION of the named loss, such as triplet.margin=0.5.

    >>> loss = Matryoshka("contrastive", dims="1,2", **{"contrastive.margin": 1.0})
    >>> x = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]])
    >>> loss(x, torch.tensor([7, 7, 9]))  # twice what Contrastive gives of the first number
    tensor(0.1667)
    """

    def __init__(
        self,
        loss: str | nn.Module | Callable[[int], nn.Module] = INNER,
        dims: str | Sequence[int] = "",
        weights: str | Sequence[float] = "",
        classes: int | None = None,
        dim: int | None = None,
        **options: Any,
    ):
        super().__init__()
        self.dims = cuts(dims, dim)
        self.weights = numbers("weights", weights, float) or [1.0] * len(self.dims)
        if len(self.weights) != len(self.dims):
            raise ValueError(
                f"weights must be as many as dims, got {len(self.weights)} and {len(self.dims)}"
            )
        for weight in self.weights:
            at_least(0, weights=weight)
        build = builder(loss, classes, options)
        losses = [build(d) for d in self.dims]
        self.losses = nn.ModuleList(losses)
        self.metric = metric_of(losses[0])
        self.references = all(takes_references(one) for one in losses)
        self.wants = tuple(dict.fromkeys(want for one in losses for want in wants_of(one)))

    @staticmethod
    def names_within(options: Mapping[str, Any]) -> list[str]:
        """The losses whose options are given as NAME.OPTION."""
        return [str(options.get("loss", INNER))]

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        if embeddings.shape[-1] < max(self.dims):
            raise ValueError(
                f"matryoshka wanted embeddings of {max(self.dims)} dimensions or more, "
                f"got {tuple(embeddings.shape)}"
            )
        terms = []
        for d, weight, loss in zip(self.dims, self.weights, self.losses, strict=True):
            references = ref_emb if ref_emb is None else ref_emb[..., :d]
            value = loss(embeddings[..., :d], labels, indices_tuple, references, ref_labels)
            terms.append(weight * value)
        return torch.stack(terms).sum()

    @property
    def active(self) -> Callable[[Tensor, Labels], Tensor]:
        """The mean of the losses' shares of active pairs; absent where the loss says none."""
        shares: list[Any] = [loss.active for loss in self.losses]
        return lambda x, labels: torch.stack(
            [share(x[:, :d], labels) for d, share in zip(self.dims, shares, strict=True)]
        ).mean()

    def rates(self) -> dict[str, float]:
        """The learning rates that the losses ask for."""
        return {
            f"losses.{i}.{prefix}": rate
            for i, loss in enumerate(self.losses)
            for prefix, rate in rates_of(loss).items()
        }

    def survey(self, embeddings: Tensor | None, labels: Tensor | None) -> None:
        """Tell each loss that an epoch begins."""
        for d, loss in zip(self.dims, self.losses, strict=True):
            start_epoch(loss, None if embeddings is None else embeddings[:, :d], labels)


def builder(
    loss: str | nn.Module | Callable[[int], nn.Module], classes: int | None, options: Mapping
) -> Callable[[int], nn.Module]:
    """d -> the loss on d numbers."""
    if isinstance(loss, str):
        from nearkin.losses import make, options_within, wants_features

        if wants_features(loss, options_within(loss, options)):
            raise ValueError(f"matryoshka cuts embeddings, but {loss} looks at the head itself")
        given = {}
        for key, value in options.items():
            if not key.startswith(f"{loss}."):
                valid = ("loss", "dims", "weights", f"{loss}.OPTION")
                raise unknown(key, valid, "option of matryoshka")
            given[key.removeprefix(f"{loss}.")] = value
        return lambda d: make(loss, given, classes=classes, dim=d)
    if options:
        raise ValueError(f"options are those of a named loss, got {', '.join(options)}")
    if not isinstance(loss, nn.Module):
        return loss
    if any(True for _ in (*loss.parameters(), *loss.buffers())):
        raise ValueError(
            f"{type(loss).__name__} has parameters of one size: give a function d -> loss, or its "
            "name"
        )
    return lambda d: loss


def cuts(dims: str | Sequence[int], dim: int | None) -> list[int]:
    """Each d, as given; or halved from D down.

    >>> cuts("", 64), cuts("64,2", 64)
    ([64, 32, 16, 8], [64, 2])
    """
    found = numbers("dims", dims, int)
    if not found:
        if dim is None:
            raise ValueError("matryoshka must be given dims, or dim, which is halved")
        found = [dim]
        while found[-1] // 2 >= LEAST:
            found.append(found[-1] // 2)
    if min(found) < 1 or len(set(found)) < len(found) or (dim is not None and max(found) > dim):
        top = "" if dim is None else f" of {dim} at most"
        raise ValueError(f"dims must be different numbers of 1 or more{top}, got {dims}")
    return found


def numbers(name: str, given: str | Sequence, kind: type) -> list:
    """Numbers separated by commas, or as they are."""
    parts = [part for part in given.split(",") if part] if isinstance(given, str) else list(given)
    try:
        return [kind(part) for part in parts]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: wanted numbers such as 8,16,64, got {given!r}") from None
