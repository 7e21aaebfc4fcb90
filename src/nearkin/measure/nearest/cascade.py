"""A cascade of screens, cheap first, and what is exact after: how most pairs are never computed.

A screen (screen.py, integers.py) scores all pairs with a low-precision product and knows how wrong
it can be; only the items that it cannot rule out are computed exactly. A query for which that would
be too many goes to a screen of higher precision, and at last to brute force.

Dimensions: B queries, M gallery, D embedding, G groups' size, W groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nearkin.measure.nearest.brute import TILE, Search, in_lists, key_lists, key_tiles
from nearkin.measure.nearest.exact import blocks, from_keys
from nearkin.measure.nearest.screen import Scores, Screen, lowest, precisions

Found = Iterator[tuple[Tensor, Tensor]]
"""(positions of queries, what was found for them)"""


def cascade(
    search: Search,
    group: float,
    cheap: Callable[[Tensor, Screen, Scores], tuple[Tensor, Tensor]],
    exact: Callable[[Tensor, Iterator[Tensor]], Tensor],
) -> Found:
    """Ask screens of rising precision, then brute force, each for what is still unproved.

    A screen that proves less than a quarter of a block is given up: it would not pay. Nor do
    groups of fewer than four.
    """
    unproved = torch.ones(len(search.query), dtype=torch.bool, device=search.device)
    left = unproved.nonzero()[:, 0]
    group = 1 << int(math.log2(max(group, 1)))
    dtypes = precisions(search.device) if search.dtypes is None else search.dtypes
    for dtype in dtypes if group >= 4 else ():
        screen = search.screen(dtype)
        for rows, scores in screened_blocks(search, screen, left, min(group, most_in(screen))):
            proved, found = cheap(rows, screen, scores)
            yield rows[proved], found
            unproved[rows[proved]] = False  # a list would pin the memory of block after block
            if 4 * len(found) < len(rows):
                break
        left = unproved.nonzero()[:, 0]
        if not len(left):
            return
    for _, rows in blocks(left, max(1, min(1024, int(search.memory / (64 * TILE))))):
        yield rows, exact(rows, key_tiles(search[rows].on_grid()))


def most_in(screen: Screen) -> int:
    """The most items that are looked at together, 128 bytes of scores: of fewer torch does not find
    maxima and sums by vectors."""
    return 128 // screen.scored.itemsize


def screened_blocks(
    search: Search, screen: Screen, rows: Tensor, group: int
) -> Iterator[tuple[Tensor, Scores]]:
    """(positions, scores (B, W, G)) of block after block of these queries."""
    tall = int(min(search.memory / 4, 2**26) / len(screen.rows) / screen.scored.itemsize)
    tall = max(1, min(512, tall, len(rows)))
    shape = tall, len(screen.rows)
    buffer = screen.rows.new_empty(shape, dtype=screen.scored)  # fresh memory for each costs as
    padding = screen.places(torch.arange(screen.size, len(screen.rows), device=search.device))
    for _, block in blocks(rows, tall):  # much as the product
        part = search[block].on_grid()
        scores = screen.scores(part.query.on_grid(), out=buffer[: len(block)])
        scores.values[:, padding] = scores.nothing
        row, item = part.own_places(0, screen.size)
        scores.values[row, screen.places(item)] = scores.nothing
        yield block, replace(scores, values=scores.values.view(len(block), -1, group))


def nearest_screened(
    search: Search, k: int, screen: Screen, scores: Scores
) -> tuple[Tensor, Tensor]:
    """(B,) bool, for which queries the screen sufficed, and the k largest keys of those."""
    query = search.query.on_grid()
    proved, places, screened = candidates(scores, k, most_listed(search, k))

    def cut_at(similarity: Tensor) -> Tensor:
        return scores.lower(screen.score_of(query, similarity))

    return nearest_listed(search, k, proved, screen.items(places), screened, cut_at)


def nearest_listed(
    search: Search,
    k: int,
    proved: Tensor,
    columns: Tensor,
    screened: Tensor,
    cut_at: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """(B,) bool, for which queries the screen sufficed, and the k largest keys of those, out of the
    lists that `candidates` gives.

    The k best screened are computed first: the k-th nearest is at least as similar as the k-th of
    them, and none that is screened below this, cut_at(similarity) (B,), can be among the k nearest.
    """
    nothing = lowest(screened.dtype)
    best = screened.topk(k).indices
    some = proved.nonzero()[:, 0]
    first = columns[some].gather(1, best[some]).flatten()
    keys = key_lists(search, some.repeat_interleave(k), first, k)
    screened = screened.scatter(1, best, nothing)
    others = (screened >= cut_at(from_keys(keys.amin(1))[0])[:, None]) & (screened > nothing)
    proved = proved & (others.sum(1) <= most_listed(search, k))
    row, place = (others & proved[:, None]).nonzero().T
    keys = torch.cat([keys, key_lists(search, row, columns[row, place])], 1)
    return proved, keys[proved].topk(k).values


def candidates(scores: Scores, k: int, few: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) bool, for which queries there are not too many to look at, and (B, C) places of theirs
    that may be among the k nearest, with their screened scores: `nothing` where lists end.

    Let t be the k-th largest of the groups' maxima: k items are screened at t or above, so the
    k-th nearest is at least as similar as t surely means, and no item screened below `cut` can
    be among the k nearest.
    """
    maxima = group_maxima(scores.values)
    cut = scores.lower(scores.surely(kth_largest(maxima, k)))
    opened = maxima >= cut[:, None]
    proved = (cut > scores.nothing) & (opened.sum(1) <= 4 * few)
    row, place, values = members(scores.values, opened & proved[:, None], cut)
    proved &= in_lists(row, len(proved))[0] <= 4 * few
    return proved, *lists_of(proved, row, place, values, k)


def lists_of(
    proved: Tensor, row: Tensor, place: Tensor, values: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """(B, C) places and screened scores of pairs, in the lists of their rows, where those are
    proved: `nothing` where a list ends. C is k or more."""
    count, number = in_lists(row, len(proved))
    kept = proved[row]
    at = row[kept], number[kept]
    shape = len(proved), max(k, int((count * proved).max()))
    places = place.new_zeros(shape).index_put(at, place[kept])
    return places, values.new_full(shape, lowest(values.dtype)).index_put(at, values[kept])


def most_listed(search: Search, k: int) -> int:
    """How many items of a query are computed one by one: more cost as much as a better screen.

    Of one column they are cheap, and no screen tells many items apart that lie on a line.
    """
    on_a_line = 8 if search.query.width == 1 else 1
    return 4 * k + max(64, on_a_line * len(search.gallery) // 256)


def above_screened(
    search: Search, targets: Tensor, screen: Screen, scores: Scores, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) bool, for which queries the screen sufficed, and their counts of larger keys.

    Items screened above `high` are surely nearer than the target, those below `low` surely
    not; the few between are computed. bfloat16 can count to 256, and a group is smaller. `mask`
    is overwritten: a comparison in the type of the scores is added up the more quickly.
    """
    exact = screen.score_of(search.query.on_grid(), from_keys(targets)[0])
    low, high = scores.lower(exact), scores.upper(exact)
    above = torch.gt(scores.values, high[:, None, None], out=mask).sum(2, dtype=mask.dtype)
    unsure = torch.ge(scores.values, low[:, None, None], out=mask).sum(2, dtype=mask.dtype) - above
    few = max(256, len(search.gallery) // 64)  # pairs, which cost as much as a better screen
    proved = (unsure.float().sum(1) <= few) & (low > scores.nothing)
    row, place, _ = members(scores.values, (unsure > 0) & proved[:, None], low, high)
    larger = key_lists(search, row, screen.items(place)) > targets[:, None]
    return proved, (above.float().sum(1).long() + larger.sum(1))[proved]


def group_maxima(scores: Tensor) -> Tensor:
    """(B, W) the largest score of each group, by way of integers: three times as quick here.

    Bits of floats, read as integers, keep the order of positive ones, place negative ones below
    them, and turn the order of those.
    """
    if not scores.is_floating_point():
        return scores.amax(2)
    bits = scores.view({torch.bfloat16: torch.int16, torch.float32: torch.int32}[scores.dtype])
    largest = bits.amax(2)
    if (largest < 0).any():
        largest = torch.where(largest < 0, bits.amin(2), largest)
    return largest.view(scores.dtype)


def kth_largest(maxima: Tensor, k: int) -> Tensor:
    """(B,) the k-th largest of each row; bfloat16 is sorted the more quickly as float32."""
    if maxima.dtype == torch.bfloat16:
        maxima = maxima.float()
    return maxima.topk(k).values[:, -1]


def members(
    scores: Tensor, opened: Tensor, low: Tensor, high: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(row, place, value) of every score in low..high (B,) in an opened group (B, W)."""
    row, group = opened.nonzero().T
    count, size = scores.shape[1:]
    inside = scores.flatten(0, 1).index_select(0, row * count + group)  # (opened groups, G)
    wanted = inside >= low[row, None]
    if high is not None:
        wanted &= inside <= high[row, None]
    which, member = wanted.nonzero().T
    return row[which], group[which] * size + member, inside[which, member]
