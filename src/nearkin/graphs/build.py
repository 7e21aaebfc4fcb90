"""Graph builders: functions and modules that decide who listens to whom in a batch.

A builder is called `(embeddings (B, D), labels=None)` and gives a matrix (B, B) of booleans, in
which [i, j] says that node i listens to node j; every node listens to itself. Neighbours are ranked
by similarity, ties by index, and no node is among its own neighbours. A permuted batch gives the
permuted graph (but for ties, and for `random`).

`label_guided` alone reads labels. It serves training only, since the labels are what the layers
are to find out.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.graphs.graph import as_nodes, counted
from nearkin.names import arguments, construct, look_up
from nearkin.registry import BUILDERS
from nearkin.tensors import as_tensor, at_least_float32, inner, unit


def cosine(x: Tensor) -> Tensor:
    """Cosines (B, B) between the rows of x (B, D)."""
    direction = unit(x)
    return inner(direction, direction)


def correlation(x: Tensor) -> Tensor:
    """Pearson's correlations (B, B): cosines of rows that are centred first."""
    x = at_least_float32(x)
    return cosine(x - x.mean(1, keepdim=True))


SIMILARITIES = {"cosine": cosine, "correlation": correlation}


def similarities(embeddings: Any, similarity: str) -> Tensor:
    """Similarities (B, B) of this name between the rows of embeddings (B, D)."""
    return look_up(similarity, SIMILARITIES, "similarity")(as_nodes(embeddings))


def full(embeddings: Any, labels: Any = None) -> Tensor:
    """The full graph: every node listens to every node."""
    nodes = as_nodes(embeddings)
    return torch.ones(len(nodes), len(nodes), dtype=torch.bool, device=nodes.device)


def knn(
    embeddings: Any,
    labels: Any = None,
    *,
    k: int = 8,
    symmetry: str = "directed",
    similarity: str = "cosine",
) -> Tensor:
    """The k-nearest-neighbour graph: each node listens to the k others most similar to it.

    Args:
        k: neighbours of a node.
        symmetry: "directed" takes the neighbours found; "union" adds the nodes that found this
            one; "intersection" keeps the neighbours that found this one as well.
        similarity: cosine or correlation; by `make_builder` also learned.

    >>> knn(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5]]), k=1).int().tolist()
    [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    """
    chosen = top(similarities(embeddings, similarity), k)
    return look_up(symmetry, SYMMETRIES, "symmetry")(chosen)


SYMMETRIES = {
    "directed": lambda chosen: chosen,
    "union": lambda chosen: chosen | chosen.T,
    "intersection": lambda chosen: chosen & chosen.T,
}


def mutual_knn(
    embeddings: Any, labels: Any = None, *, k: int = 8, similarity: str = "cosine"
) -> Tensor:
    """The mutual k-NN graph: nodes listen to each other if each is among the other's k nearest."""
    return knn(embeddings, k=k, symmetry="intersection", similarity=similarity)


def threshold(
    embeddings: Any,
    labels: Any = None,
    *,
    threshold: float = 0.5,
    sign: str = "positive",
    similarity: str = "cosine",
) -> Tensor:
    """The threshold graph: two nodes listen to each other if their similarity s exceeds t.

    Source: `thresh` in the released code of Seidenschwarz et al., ICML 2021, whose s is Pearson's
    correlation. Differs: the cosine, unless similarity is "correlation".

    Args:
        threshold: t.
        sign: "positive" s > t, "negative" s < -t, "both" |s| > t.
        similarity: cosine or correlation; by `make_builder` also learned.
    """
    values = similarities(embeddings, similarity)
    return with_self_loops(look_up(sign, SIGNS, "sign")(values) > threshold)


SIGNS = {"positive": lambda s: s, "negative": lambda s: -s, "both": lambda s: s.abs()}


def top_ratio(
    embeddings: Any,
    labels: Any = None,
    *,
    ratio: float = 0.1,
    similarity: str = "cosine",
) -> Tensor:
    """The k-NN graph with k = ceil(ratio B), which grows with the batch."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    values = similarities(embeddings, similarity)
    return top(values, math.ceil(round(ratio * len(embeddings), 9)))  # 0.07 of 100 is 7


def label_guided(
    embeddings: Any,
    labels: Any = None,
    *,
    k: int = 8,
    bonus: float = 1.0,
    similarity: str = "cosine",
) -> Tensor:
    """The k-NN graph by similarity + bonus [same class], for training only as it reads labels.

    Cosines differ by 2 at most: with a bonus above 2 a node's own class always comes first.

    Raises:
        ValueError: without labels.
    """
    if labels is None:
        raise ValueError("label-guided graphs are for training only: wanted labels, got none")
    values = similarities(embeddings, similarity)
    wanted = f"labels must be {len(values)} integers, one for each embedding"
    labels = as_tensor(labels, wanted, values.device)
    if labels.shape != values.shape[:1]:
        raise ValueError(f"{wanted}, got {tuple(labels.shape)}")
    return top(values + bonus * (labels[:, None] == labels[None, :]), k)


def random(
    embeddings: Any,
    labels: Any = None,
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
    """The random graph with the degrees of another, which is the control of claims about a graph.

    Each node listens to as many others as in the graph that the builder `like` gives for the same
    batch with these options (of a learned builder: with the weights that it starts from). They are
    drawn from torch's generator, uniformly.
    """
    if like == "random":
        raise ValueError("like must name a builder with a degree to match, got 'random'")
    options = {"k": k, "threshold": threshold, "ratio": ratio, "sign": sign}
    options |= {"symmetry": symmetry, "similarity": similarity, "temperature": temperature}
    nodes = as_nodes(embeddings)
    build: Any = make_builder(like, dim=nodes.shape[1], **options)
    build = build.to(nodes) if isinstance(build, nn.Module) else build
    matched = build(nodes, labels)
    draw = torch.rand(matched.shape, device=matched.device).fill_diagonal_(torch.inf)
    rank = draw.argsort(1, descending=True).argsort(1)  # a node's own rank is 0
    return rank < matched.sum(1, keepdim=True)


class Learned(nn.Module):
    """A builder that learns: neighbours are the support of the sparsemax of a learned similarity.

        s_ij = cos(W x_i, W x_j) / temperature
        p_i = sparsemax of s_i over the others

    i listens to j where p_ij > 0. Called, it gives these booleans; the loss moves W by way of
    `weights`, the p_ij, by which attention is multiplied before it is normalised.

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
        """The weights (B, B) of the graph: p_ij, and 1 of each node on itself."""
        score = cosine(self.project(embeddings)) / self.temperature
        itself = torch.eye(len(score), dtype=torch.bool, device=score.device)
        if len(score) > 1:  # below all others by more than their shares: outside the support
            score = score.masked_fill(itself, score.detach().min() - 1)
        return sparsemax(score).masked_fill(itself, 1)


class LearnedSimilarity(nn.Module):
    """A builder that learns: another builder, on W x in place of x.

        s_ij = cos(W x_i, W x_j)
        w_ij = exp(s_ij - 1) where that builder lets i listen to j

    Called, it gives the booleans of that builder; the loss moves W by way of `weights`, the w_ij,
    by which attention is multiplied, so that s_ij is added to its score. W starts as the identity.

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
        """The weights (B, B) of the graph: w_ij, 1 of each node on itself, 0 without an edge."""
        chosen = self(embeddings, labels)
        return torch.where(chosen, (cosine(self.project(embeddings)) - 1).exp(), 0)


def projection(dim: int) -> nn.Linear:
    """W (D, D), the identity at the start."""
    linear = nn.Linear(dim, dim, bias=False)
    nn.init.eye_(linear.weight)
    return linear


def sparsemax(scores: Tensor) -> Tensor:
    """The point of the probability simplex nearest to the scores, in the last dimension.

    p_j = max(s_j - t, 0), with t such that they sum to 1: a softmax with exact zeros.

    >>> sparsemax(torch.tensor([1.0, 0.8, -1.0]))
    tensor([0.6000, 0.4000, 0.0000])
    """
    ordered = scores.sort(-1, descending=True).values
    rank = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype, device=scores.device)
    excess = ordered.cumsum(-1) - 1
    size = (rank * ordered > excess).sum(-1, keepdim=True).clamp_min(1)  # of the support; 0 of NaN
    return (scores - excess.gather(-1, size - 1) / size).clamp_min(0)


def make_builder(
    name: str, dim: int | None = None, **options: str | int | float | bool | None
) -> Callable[..., Tensor]:
    """The builder of this name with these options set; an option of None stays at its default.

    An option that the builder does not have is an error. `learned`, and any builder with
    similarity="learned", is a module and needs `dim`, the size of the embeddings.

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
    """Booleans (B, B): the k highest values of each row off the diagonal, and the diagonal.

    Of equal values the first are taken.
    """
    k, size = counted(k, "k"), len(values)
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
    """The matrix (B, B) in which every node also listens to itself."""
    return adjacency | torch.eye(len(adjacency), dtype=torch.bool, device=adjacency.device)
