"""Which pairs a loss looks at: all of the batch, or those that a miner chose.

A miner's choice comes as pytorch-metric-learning hands it over: pairs (a1, p, a2, n) or triplets
(a, p, n), each a tensor of indices; a into the batch, p and n into the references.
Dimensions: B batch, M references, T triplets.
"""

import torch
from torch import Tensor, nn

from nearkin.tensors import pair_masks

Mined = tuple[Tensor, ...] | None


def pair_weights(
    labels: Tensor,
    ref_labels: Tensor | None,
    mined: Mined,
    dtype: torch.dtype,
    same: bool = False,
) -> tuple[Tensor, Tensor]:
    """The pairs of kin and the pairs of others that a loss looks at: two (B, M).

    Masks, bool, where nothing was mined; else how often the miner names each, of this dtype.

    Args:
        labels: (B,), of the anchors.
        ref_labels: (M,), of the references; None for the batch itself.
        mined: what a miner chose, or None.
        dtype: of the counts.
        same: whether the references are the batch itself (`are_the_batch`), so that item i is
            reference i and no kin of its own.
    """
    if mined is None:
        kin, others = pair_masks(labels, ref_labels)
        if same:
            kin.diagonal().fill_(False)
        return kin, others
    if len(mined) == 3:
        anchor, positive, negative = mined
        mined = (anchor, positive, anchor, negative)
    if len(mined) != 4:
        raise ValueError(f"a miner gives 3 or 4 tensors of indices, got {len(mined)}")
    shape = (len(labels), len(labels if ref_labels is None else ref_labels))
    return counts(mined[0], mined[1], shape, dtype), counts(mined[2], mined[3], shape, dtype)


def counts(rows: Tensor, columns: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """How often each cell of a table is named."""
    table = torch.zeros(shape, dtype=dtype, device=rows.device)
    return table.index_put_((rows, columns), table.new_ones(()), accumulate=True)


def checked_labels(labels: Tensor, embeddings: Tensor, classes: int | None = None) -> Tensor:
    """The labels (B,) as int64, one for each embedding (B, D), or an error that says what came.

    classes: of a loss that owns a part for each class, and knows no others.
    """
    for name, given in (("embeddings", embeddings), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(given).__name__}")
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ValueError(
            "embeddings must be floats (B, D), one row an item, "
            f"got {tuple(embeddings.shape)} of {embeddings.dtype}"
        )
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must be {len(embeddings)} integers, one for each embedding, "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )
    if classes and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        low, high = int(labels.min()), int(labels.max())
        raise ValueError(f"labels must be in 0..{classes - 1}, got {low}..{high}")
    return labels.long()


def check_references(ref_emb: Tensor | None, ref_labels: Tensor | None) -> None:
    """References and their labels come together."""
    if (ref_emb is None) != (ref_labels is None):
        raise ValueError("ref_emb and ref_labels go together, but only one was given")


def are_the_batch(ref_emb: Tensor | None, embeddings: Tensor) -> bool:
    """Whether references are the very embeddings of the batch: the same tensor, or a copy of it."""
    if ref_emb is None or ref_emb.dtype != embeddings.dtype or ref_emb.device != embeddings.device:
        return False
    return ref_emb is embeddings or torch.equal(ref_emb, embeddings)


def refuse(loss: nn.Module, mined: Mined) -> None:
    """For a loss over more than pairs and triplets: it cannot honour a miner."""
    if mined is not None:
        name = type(loss).__name__
        raise ValueError(
            f"{name} takes no miner, and no sampler of triplets or pairs: it looks at the whole "
            "batch, not at some of its pairs"
        )
