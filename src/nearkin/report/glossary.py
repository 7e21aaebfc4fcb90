"""The words of a page that the field alone knows, each in a sentence for everyone else."""

from __future__ import annotations

import re

from nearkin.answers import Answer

WORDS = {
    "R@1, R@k": (
        r"R@\d",
        "share of test items among whose nearest one (or k) other items is one of the same class",
    ),
    "5-NN accuracy": (
        r"5-NN",
        "share of test items that get their own class by a vote of the five nearest training items",
    ),
    "MAP@R": (
        r"MAP@R",
        "how high all items of the same class stand among the nearest, 100 % where they come "
        "before all others; it tells embeddings apart that R@1 does not",
    ),
    "NMI": (
        r"\bNMI\b",
        "how well clusters of the embeddings, found without labels, are the classes",
    ),
    "2-D, 64-D": (r"\d-D\b", "the number of coordinates of an embedding"),
    "seed": (
        r"\bseeds?\b",
        "the number from which all chance of a run is drawn; several seeds show how much is chance",
    ),
    "95 % t-interval": (
        r"t-interval",
        "where the mean over all possible seeds lies, with 95 % certainty",
    ),
    "surely, p, Holm-corrected": (
        r"[Ss]urely|\bp [<=\u2265]|Holm",
        "p is how often chance alone would make a difference this large; one with p below 0.05, "
        "after a correction for how many were asked, is called sure",
    ),
    "no training": (
        r"[Nn]o training",
        "the pixels, or the features of a pretrained network, searched as they are",
    ),
    "closed form": (
        r"closed forms?",
        "a linear map that is computed by formula from the training features, without any steps",
    ),
    "whitened": (
        r"whiten",
        "features turned and scaled so that they vary equally in all directions (PCA), or that the "
        "items of a class do (within-class)",
    ),
    "stored features": (
        r"stored features|features, \d",
        "the outputs of a pretrained network, computed once; a small map on them, the head, is all "
        "that learns",
    ),
    "orthogonal start": (
        r"orthogonal",
        "a head that begins as a turn, without any knowledge of the data",
    ),
    "proxy": (r"[Pp]rox", "a learnt vector that stands for a class, to which items are compared"),
}
"""Word -> the pattern by which it is found, and what it means."""


def used(answer: Answer) -> list[tuple[str, str]]:
    """Those of WORDS that the answer uses, with their meanings.

    >>> [word for word, _ in used(Answer("t", "Which has the highest R@1 at 64-D?"))]
    ['R@1, R@k', '2-D, 64-D']
    """
    said = [answer.title, answer.question, *answer.summary, *map(str, answer.findings)]
    for table in answer.tables:
        said += [table.title, table.note, *table.columns]
        said += [cell for row in table.rows for cell in row if isinstance(cell, str)]
    text = "\n".join(said)
    return [(word, meaning) for word, (found, meaning) in WORDS.items() if re.search(found, text)]
