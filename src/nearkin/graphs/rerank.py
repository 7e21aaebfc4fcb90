"""Re-ranking by a refiner: test images refined, each in a graph of its own built without labels.

At test time the backbone alone embeds. A study that refines the test set as well states where the
neighbours of an image came from. Refining whole test batches that are grouped by class would give
the answer away, as would any graph that reads labels, and is refused.
Dimensions: N images, M of the gallery, D embedding, k neighbours.
"""

from typing import Any

import torch
from torch import Tensor

from nearkin.graphs.graph import as_nodes
from nearkin.graphs.refiner import Refiner
from nearkin.names import look_up
from nearkin.registry import SOURCES
from nearkin.tensors import inner, unit

BLOCK = 1024  # images whose cosines with the gallery are held at once
REACH = 30  # k of the k-reciprocal neighbours


def refine_at_test(
    refiner: Refiner,
    query: Any,
    gallery: Any = None,
    *,
    source: str,
    k: int = 6,
    labels: Any = None,
) -> tuple[Tensor, str]:
    """Refined embeddings of test images, each in the graph of itself and its gallery neighbours.

    Args:
        refiner: a trained one; it is used in evaluation mode, on unit embeddings.
        query: (N, D).
        gallery: (M, D); by default the queries, each without itself.
        source: where neighbours come from: "gallery", the k nearest by cosine; "reciprocal", the k
            nearest of the k-reciprocal ones (`reciprocal`), which may be fewer.
        k: the number of neighbours.
        labels: must be None.

    Returns:
        The refined embeddings (N, D) or, of a refiner that concatenates, (N, L D); and a sentence
        that says what the graphs were built from, to stand beside every number that they give.

    Raises:
        ValueError: for labels, an unknown source, or embeddings that do not fit.
    """
    if labels is not None or source == "labels":
        raise ValueError("grouping test images by label gives the answer away: wanted no labels")
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    query = unit(as_nodes(query))
    searched = query if gallery is None else unit(as_nodes(gallery)).to(query)
    if k < 0 or searched.shape[1:] != query.shape[1:]:
        raise ValueError(
            f"wanted k of 0 or more and a gallery (M, {query.shape[1]}), "
            f"got {k} and {tuple(searched.shape)}"
        )
    lists = look_up(source, SOURCES, "source")(query, searched, k, gallery is None)
    training = refiner.training
    refiner.eval()
    with torch.no_grad():
        graphs = (
            torch.cat([x[None], searched[near]]) for x, near in zip(query, lists, strict=True)
        )
        refined = torch.stack([refiner(nodes)[0] for nodes in graphs]) if len(query) else query
    refiner.train(training)
    kind = "nearest" if source == "gallery" else f"nearest {REACH}-reciprocal"
    where = "among the queries" if gallery is None else "in the gallery"
    return refined, f"each image with its {k} {kind} neighbours {where}"


def nearest(query: Tensor, gallery: Tensor, k: int, same: bool) -> list[Tensor]:
    """Indices of the k nearest of the gallery (M, D) for each of the unit rows of query (N, D).

    same: whether query and gallery are one set, in which no image is its own neighbour.
    """
    return [index for _, index in ranked(query, gallery, k, same)]


def reciprocal(query: Tensor, gallery: Tensor, k: int, same: bool) -> list[Tensor]:
    """Indices of the k nearest among the expanded k-reciprocal neighbours R* of each query.

        R(q, n) = the n nearest of q that have q among their own n nearest,    n = 30
        R*(q) = R(q, n), joined by each R(c, n/2), c in R(q, n), that lies in R(q, n) by 2/3 or more

    Source: Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017,
    section 3.2, arXiv:1701.08398; the released code of Seidenschwarz et al. 2021 uses it this way.
    """
    own = [(s.tolist(), j.tolist()) for s, j in ranked(gallery, gallery, REACH, True)]
    near = (
        own if same else [(s.tolist(), j.tolist()) for s, j in ranked(query, gallery, REACH, False)]
    )

    def mutual(i: int | None, cosines: list[float], index: list[int], reach: int) -> set[int]:
        """R of an image with these neighbours, which is number i of the gallery or outside it."""
        near = zip(cosines[:reach], index[:reach], strict=True)
        return {j for s, j in near if i in own[j][1][:reach] or s > last(own[j][0], reach)}

    half = [mutual(i, *neighbours, REACH // 2) for i, neighbours in enumerate(own)]
    lists = []
    for i, (x, neighbours) in enumerate(zip(query, near, strict=True)):
        kept = mutual(i if same else None, *neighbours, REACH)
        grown = kept.union(*(half[c] for c in kept if len(kept & half[c]) >= 2 / 3 * len(half[c])))
        members = torch.tensor(sorted(grown - ({i} if same else set())), device=query.device).long()
        order = (gallery[members] @ x).argsort(descending=True, stable=True)
        lists.append(members[order[:k]])
    return lists


def last(cosines: list[float], reach: int) -> float:
    """The cosine that one must exceed to be among the `reach` nearest."""
    return cosines[reach - 1] if len(cosines) >= reach else -torch.inf


def ranked(query: Tensor, gallery: Tensor, k: int, same: bool) -> list[tuple[Tensor, Tensor]]:
    """Cosines and indices of the k nearest of each image, from near to far."""
    found = []
    for start in range(0, len(query), BLOCK):
        cosine = inner(query[start : start + BLOCK], gallery)
        if same:
            row = torch.arange(len(cosine), device=cosine.device)
            cosine[row, start + row] = -torch.inf
        values, index = cosine.topk(min(k, len(gallery) - same), 1)
        found += zip(values, index, strict=True)
    return found
