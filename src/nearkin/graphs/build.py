"""Who listens to whom: builders of the graph of a batch.

A builder is called `(embeddings (B, D), labels=None) -> adjacency (B, B) bool`; adjacency[i, j]
means that i listens to j, and every node listens to itself. Neighbours are ranked by similarity,
ties by index, and nobody counts as a neighbour of itself. A permuted batch gives the permuted
graph (ties and `random` aside).

`label_guided` reads labels, so it belongs to training only: it tells the layers what the loss
asks them to find out. No other builder looks at them.

A graph of few neighbours may also be written as lists (B, k) of whom each node listens to.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.names import arguments, construct, look_up
from nearkin.registry import BUILDERS
from nearkin.tensors import at_least_float32, inner, unit


def cosine(x: Tensor) -> Tensor:
    """Cosines (B, B) between the rows of x (B, D)."""
    direction = unit(x)
    return inner(direction, direction)


def correlation(x: Tensor) -> Tensor:
    """Pearson's correlations (B, B): cosines of rows that are centred first."""
    x = at_least_float32(x)
    return cosine(x - x.mean(1, keepdim=True))


SIMILARITIES = {"cosine": cosine, "correlation": correlation}


def full(embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
    """Everybody listens to everybody."""
    size = len(embeddings)
    return torch.ones(size, size, dtype=torch.bool, device=embeddings.device)


def knn(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    k: int = 8,
    symmetry: str = "directed",
    similarity: str = "cosine",
) -> Tensor:
    """Each node listens to the k others most like it.

    symmetry: "directed", as found; "union", to those too that found it; "intersection", to those
    alone that also found it.

    >>> knn(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5]]), k=1).int().tolist()
    [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    """
    chosen = top(look_up(similarity, SIMILARITIES, "similarity")(embeddings), k)
    return look_up(symmetry, SYMMETRIES, "symmetry")(chosen)


SYMMETRIES = {
    "directed": lambda chosen: chosen,
    "union": lambda chosen: chosen | chosen.T,
    "intersection": lambda chosen: chosen & chosen.T,
}


def mutual_knn(
    embeddings: Tensor, labels: Tensor | None = None, *, k: int = 8, similarity: str = "cosine"
) -> Tensor:
    """Two nodes listen to each other where each is among the k most like the other."""
    return knn(embeddings, k=k, symmetry="intersection", similarity=similarity)


def threshold(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    threshold: float = 0.5,
    sign: str = "positive",
    similarity: str = "cosine",
) -> Tensor:
    """Two nodes listen to each other where their similarity s passes a threshold t.

    Source: `thresh` in the released code of Seidenschwarz et al., ICML 2021, whose s is Pearson's
    correlation. Differs: the cosine, unless similarity is "correlation".

    sign: "positive" s > t, "negative" s < -t, "both" |s| > t.
    """
    values = look_up(similarity, SIMILARITIES, "similarity")(embeddings)
    return with_self_loops(look_up(sign, SIGNS, "sign")(values) > threshold)


SIGNS = {"positive": lambda s: s, "negative": lambda s: -s, "both": lambda s: s.abs()}


def top_ratio(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    ratio: float = 0.1,
    similarity: str = "cosine",
) -> Tensor:
    """Each node listens to the ceil(ratio B) others most like it: k grows with the batch."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    values = look_up(similarity, SIMILARITIES, "similarity")(embeddings)
    return top(values, math.ceil(round(ratio * len(embeddings), 9)))  # 0.07 of 100 is 7


def label_guided(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    k: int = 8,
    bonus: float = 1.0,
    similarity: str = "cosine",
) -> Tensor:
    """Training only, as it reads labels: the k others highest in similarity + bonus [same class].

    Cosines differ by 2 at most, so with a bonus above 2 one's own class always comes first.
    """
    if labels is None:
        raise ValueError("label-guided graphs are for training only: wanted labels, got none")
    values = look_up(similarity, SIMILARITIES, "similarity")(embeddings)
    return top(values + bonus * (labels[:, None] == labels[None, :]), k)


def random(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    like: str = "knn",
    k: int | None = None,
    threshold: float | None = None,
    ratio: float | None = None,
    sign: str | None = None,
    symmetry: str | None = None,
    similarity: str | None = None,
    temperature: float | None = None,
) -> Tensor:
    """The control of every claim about a graph: as many neighbours as in `like`, drawn at random.

    Each node keeps the number of those it listens to in the graph that the builder `like`, with
    these options, gives for the same batch; where that is learned, in the graph that it starts
    from. Draws from torch's generator.
    """
    if like == "random":
        raise ValueError("like must name a builder with a degree to match, got 'random'")
    options = {"k": k, "threshold": threshold, "ratio": ratio, "sign": sign}
    options |= {"symmetry": symmetry, "similarity": similarity, "temperature": temperature}
    build: Any = make_builder(like, dim=embeddings.shape[1], **options)
    build = build.to(embeddings) if isinstance(build, nn.Module) else build
    matched = build(embeddings, labels)
    draw = torch.rand(matched.shape, device=matched.device).fill_diagonal_(torch.inf)
    rank = draw.argsort(1, descending=True).argsort(1)  # a node's own rank is 0
    return rank < matched.sum(1, keepdim=True)


class Learned(nn.Module):
    """Neighbours by a learned similarity: the support of its sparsemax.

        s_ij = cos(W x_i, W x_j) / temperature
        p_i = sparsemax of s_i over the others

    i listens to j where p_ij > 0. What can be learned from is `weights`: attention is multiplied by
    them before it is normalised, so that the loss moves W.

    Source: Martins & Astudillo, From softmax to sparsemax, ICML 2016, eq. 2, arXiv:1602.02068.

    Args:
        dim: D, of the embeddings.
        temperature: the lower, the fewer neighbours.
    """

    def __init__(self, dim: int, *, temperature: float = 0.1):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.project = projection(dim)
        self.temperature = temperature

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.weights(embeddings) > 0

    def weights(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, B): p_ij, and 1 of each node on itself."""
        score = cosine(self.project(embeddings)) / self.temperature
        itself = torch.eye(len(score), dtype=torch.bool, device=score.device)
        if len(score) > 1:  # below all others by more than their shares: outside the support
            score = score.masked_fill(itself, score.detach().min() - 1)
        return sparsemax(score).masked_fill(itself, 1)


class LearnedSimilarity(nn.Module):
    """A builder in which W x, learned, stands for x.

        s_ij = cos(W x_i, W x_j)
        w_ij = exp(s_ij - 1) where the builder lets i listen to j

    What can be learned from is `weights`: attention is multiplied by them, and so has s_ij added to
    its score. W is the identity at the start.

    Args:
        dim: D, of the embeddings.
        build: the builder, by cosines.
    """

    def __init__(self, dim: int, build: Callable[..., Tensor]):
        super().__init__()
        self.project, self.build = projection(dim), build

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.build(self.project(embeddings), labels)

    def weights(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, B): w_ij, 1 of each node on itself and 0 where there is no edge."""
        chosen = self(embeddings, labels)
        return torch.where(chosen, (cosine(self.project(embeddings)) - 1).exp(), 0)


def projection(dim: int) -> nn.Linear:
    """W (D, D), the identity at the start."""
    linear = nn.Linear(dim, dim, bias=False)
    nn.init.eye_(linear.weight)
    return linear


def sparsemax(scores: Tensor) -> Tensor:
    """The point of the simplex nearest to the scores, in the last dimension.

    p_j = max(s_j - t, 0), with t such that they sum to 1: as softmax, but with exact zeros.

    >>> sparsemax(torch.tensor([1.0, 0.8, -1.0]))
    tensor([0.6000, 0.4000, 0.0000])
    """
    ordered = scores.sort(-1, descending=True).values
    rank = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype, device=scores.device)
    excess = ordered.cumsum(-1) - 1
    size = (rank * ordered > excess).sum(-1, keepdim=True)  # of the support
    return (scores - excess.gather(-1, size - 1) / size).clamp_min(0)


def make_builder(
    name: str, dim: int | None = None, **options: str | int | float | bool | None
) -> Callable[..., Tensor]:
    """The builder of this name with these options set; an option of None stays at its default.

    An option that the builder does not have is an error. `learned`, and any builder with
    similarity="learned", needs the size of the embeddings and is a module.

    >>> make_builder("knn", k=1)(torch.eye(2)).tolist()
    [[True, True], [True, True]]
    """
    build, kind = look_up(name, BUILDERS, "graph"), f"option of graph {name!r}"
    given = {option: value for option, value in options.items() if value is not None}
    if isinstance(build, type):
        return construct(build, given, kind, dim=dim)
    given = arguments(partial(build, None, None), given, kind)  # less embeddings and labels
    if given.get("similarity") == "learned" and build is not random:
        if dim is None:
            raise ValueError("a learned similarity wants dim, the size of the embeddings, got none")
        return LearnedSimilarity(dim, partial(build, **{**given, "similarity": "cosine"}))
    return partial(build, **given)


def top(values: Tensor, k: int) -> Tensor:
    """Each row's k highest values off the diagonal, ties by index, and the diagonal: (B, B)."""
    if k < 0:
        raise ValueError(f"k must not be negative, got {k}")
    size = len(values)
    if k >= size - 1:
        return torch.ones_like(values, dtype=torch.bool)
    itself = torch.eye(size, dtype=torch.bool, device=values.device)
    values = values.masked_fill(itself, -torch.inf)
    if k == 0:
        return itself
    last = values.topk(k, 1).values[:, -1:]  # the k-th highest
    above, level = values > last, values == last
    free = k - above.sum(1, keepdim=True)
    return above | (level & (level.cumsum(1) <= free)) | itself


def with_self_loops(adjacency: Tensor) -> Tensor:
    """The adjacency (B, B), in which every node also listens to itself."""
    return adjacency | torch.eye(len(adjacency), dtype=torch.bool, device=adjacency.device)


def neighbour_lists(adjacency: Tensor) -> Tensor:
    """(B, B) bool as lists (B, k) of whom each node listens to; -1 where a list is shorter.

    >>> neighbour_lists(torch.tensor([[True, False], [True, True]]))
    tensor([[ 0, -1],
            [ 0,  1]])
    """
    listener, speaker = adjacency.nonzero(as_tuple=True)
    degree = adjacency.sum(1)
    place = torch.arange(len(listener), device=adjacency.device)
    place = place - (degree.cumsum(0) - degree)[listener]
    longest = int(degree.max()) if len(degree) else 1
    lists = torch.full((len(adjacency), longest), -1, device=adjacency.device)
    lists[listener, place] = speaker
    return lists
