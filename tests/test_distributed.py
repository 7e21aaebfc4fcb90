"""Several processes carry out one run: their number changes the time, and no number.

The sixteen mistakes that other libraries are known for, each as a test, on 2 and 3 processes of the
CPU in double precision. All processes are started once for each number of them, and what they come
to is stored; the tests look at it.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearkin.data import Split, Splits
from nearkin.data.items import Items
from nearkin.data.photographs import Photographs
from nearkin.data.transforms import centred
from nearkin.losses import Contrastive, make, wants_features
from nearkin.registry import AUGMENTS, LOSSES, MINERS, SAMPLERS
from nearkin.runs.backward import own_rows
from nearkin.runs.evaluate import examine
from nearkin.runs.loop import one_step
from nearkin.runs.ranks import ALONE, Ranks, current
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from processes import compared, followed, in_processes, points

COUNTS = (2, 3)
BATCH: dict[int, dict[str, Any]] = {
    2: {"batch": 15, "per_class": 3},
    3: {"batch": 16, "per_class": 4},
}  # no equal slices
LOSS, GRADIENT, WEIGHTS = 1e-9, 1e-9, 1e-7
VARIANTS = {
    "hdml triplet": {"loss": "hdml", "loss_options": {"base": "triplet"}},
    "hdml released": {"loss": "hdml", "loss_options": {"form": "released"}},
    "hierarchical-triplet, survey": {
        "loss": "hierarchical-triplet",
        "loss_options": {"tree": "epoch"},
        "sampler": "neighbours",
        "batch": 16,
        "per_class": 2,
    },
    "combined with proxies": {
        "loss": "combined",
        "loss_options": {"terms": "triplet + 0.5 * proxy-anchor + hdml"},
    },
    "matryoshka of proxies": {
        "loss": "matryoshka",
        "loss_options": {"loss": "proxy-nca", "dims": "2,4"},
    },
    "graph-refinement, gatv2": {"loss": "graph-refinement", "loss_options": {"layer": "gatv2"}},
    "graph-refinement, random graph": {
        "loss": "graph-refinement",
        "loss_options": {"builder": "random"},
    },
    "pml": {"loss": "pml:CircleLoss"},
    "clip, decay, average": {"clip": 0.1, "start_decay": 0.1, "average": 0.9, "optimizer": "adamw"},
    "means": {"loss": "proxy-anchor", "loss_start": "means"},
    "linear, whitened": {
        "backbone": "linear",
        "backbone_options": {},
        "head_start": "lda",
        "head_dropout": 0.3,
    },
}
MEMORIES = {
    "memory": {"loss": "contrastive", "memory": 40},
    "memory of triplets": {"loss": "triplet", "memory": 25},
    "memory in chunks": {"loss": "contrastive", "memory": 40, "chunk": 4},
}
CHUNKS = {
    "chunks": {"loss": "triplet", "chunk": 4},
    "chunks of proxies": {"loss": "proxy-gml", "chunk": 3},
    "chunks, one each": {"loss": "supcon", "chunk": 64},
}
BY_SAMPLER = {
    "tuples": {"batch": 14, "loss": "n-pair"},
    "triplets": {"batch": 15, "loss": "triplet"},
    "pairs": {"batch": 16, "loss": "contrastive"},
    "streams": {"batch": 16, "loss": "contrastive"},
    "neighbours": {"batch": 16, "per_class": 2, "loss": "triplet"},
    "random": {"batch": 17, "loss": "multi-similarity"},
    "classes": {"batch": 14, "per_class": 2, "loss": "group"},
}


def base(count: int) -> Recipe:
    return Recipe(
        data="points",
        backbone="mlp",
        backbone_options={"hidden": 24},
        dim=4,
        loss="contrastive",
        epochs=1,
        steps=5,
        **BATCH[count],
    )


class Crossed(nn.Module):
    """An own network whose embeddings are not contiguous in memory."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 24).reshape(4, 6).sin())

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.T).T


class Live(nn.Module):
    """An own network with batch normalisation of two kinds and four kinds of noise."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3), PathDropped(0.4)
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(54, 12),
            nn.BatchNorm1d(12, momentum=None),
            nn.AlphaDropout(0.2),
            nn.Linear(12, 7, bias=False),
            nn.BatchNorm1d(7, affine=False),
            nn.Dropout(0.2),
            nn.Linear(7, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class PathDropped(nn.Module):
    """Some items are left out of a layer, as timm's DropPath does it."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.share)
        return x * kept / (1 - self.share)


class Noisy(nn.Linear):
    """Noise that is drawn in a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn(x.shape, dtype=x.dtype) * self.training)


class Mixed(nn.Linear):
    """An embedding that hangs on the others of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


def pictures() -> Splits:
    """Small pictures as floats, of 10 classes of 8."""
    whole = points(features=50)
    parts = [replace(p, inputs=p.tensor.view(-1, 2, 5, 5)) for p in (whole.train, whole.query)]
    return Splits("pictures", parts[0], parts[1], parts[1])


def everything(count: int) -> dict:
    """What several processes come to in all cases, each beside what one comes to."""
    recipe, vectors, ranks = base(count), points(), current()
    cases = {name: replace(recipe, loss=name) for name in LOSSES}
    for group in (VARIANTS, MEMORIES, CHUNKS):
        cases |= {name: replace(recipe, **changes) for name, changes in group.items()}
    cases |= {f"miner {m}": replace(recipe, loss="triplet", miner=m) for m in MINERS}
    for sampler, changes in BY_SAMPLER.items():
        cases[f"sampler {sampler}"] = replace(recipe, sampler=sampler, **changes)
    cases["one image a rank"] = replace(recipe, sampler="triplets", batch=3, loss="ratio-triplet")
    own = {"not contiguous": (recipe, {"backbone": Crossed})}
    live = {"live": (recipe, {"backbone": Live})}
    live["live, the trunk rests"] = (replace(recipe, head_first=1, epochs=3), {"backbone": Live})
    live["frozen"] = (replace(recipe, freeze=True), {"backbone": Live})
    found = compared({name: (recipe, {}) for name, recipe in cases.items()} | own, vectors)
    return {
        "cases": found | compared(live, pictures()),
        "no kin": no_kin(recipe, vectors),
        "order": order(ranks),
        "memory": {name: memory(cases[name], vectors) for name in MEMORIES},
        "batches": batches(count),
        "rows": rows(),
        "evaluation": evaluation(recipe, ranks),
        "refusals": refusals(recipe, vectors),
        "calls": calls(replace(recipe, chunk=4), vectors),
    }


def no_kin(recipe: Recipe, splits: Splits) -> list[float]:
    """A batch without two of a class: the loss and the largest gradient, alone and together."""
    found = []
    for ranks in (ALONE, current()):
        run = Run(replace(recipe, loss="triplet", batch=9, per_class=3), splits, "cpu", ranks=ranks)
        run.batches = torch.arange(0, 72, 8)[None]  # an image of each class
        gradients = []
        run.optimizer.step = lambda run=run, seen=gradients: seen.extend(
            p.grad.abs().max().item() for p in run.backbone.parameters()
        )
        one_step(run)
        found += [run.loss_sum.item(), *gradients]
    return found


def order(ranks: Ranks) -> dict:
    """Rows of the ranks as they are gathered, of equal and of unequal numbers."""
    sizes = ranks.sizes(7)
    whole = torch.arange(14.0).view(7, 2)
    empty = [3 if rank == 1 else 0 for rank in range(ranks.count)]
    mine = torch.full((empty[ranks.rank], 2), 5.0) if empty[ranks.rank] else None
    return {
        "sizes": sizes,
        "unequal": torch.equal(ranks.gather(whole[ranks.own(7)], sizes), whole),
        "strided": torch.equal(ranks.gather(whole.T[:, ranks.own(7)].T, sizes), whole),
        "equal": ranks.gather(torch.tensor([ranks.rank]), [1] * ranks.count).tolist(),
        "some have none": ranks.joint(mine).tolist(),
    }


def memory(recipe: Recipe, splits: Splits) -> dict:
    """What a memory holds after 3 steps, here and in one process."""
    alone, here = (followed(recipe, splits, r, steps=3)["state"] for r in (ALONE, current()))
    return {
        "labels": torch.equal(alone["loss past_labels"], here["loss past_labels"]),
        "size": len(here["loss past"]),
        "apart": (alone["loss past"] - here["loss past"]).abs().max().item(),
        "mine": here["loss past"].sum().item(),
    }


def batches(count: int) -> dict[str, bool]:
    """Whether the batches of every sampler are those of one process, epoch by epoch."""
    found = {}
    for sampler, changes in BY_SAMPLER.items():
        recipe = replace(base(count), sampler=sampler, **changes, steps=0, epochs=3)
        alone, here = (Run(recipe, points(), "cpu", ranks=r) for r in (ALONE, current()))
        found[sampler] = True
        for epoch in range(3):
            for run in (alone, here):
                run.draw(epoch)
            found[sampler] &= torch.equal(alone.batches, here.batches)
    return found


def rows() -> dict[str, bool]:
    """Whether the slices of the ranks, put together, are the batch of one process: augmented
    pictures of one size and of many, and the items of a Dataset that draws."""
    AUGMENTS["own"] = darkened
    found, ranks, indices = {}, current(), torch.tensor([3, 1, 4, 15, 9, 2, 6])
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (20, 1, 28, 28), generator=generator).byte()
    heights, widths = torch.arange(40, 60), torch.arange(70, 50, -1)
    starts = (heights * widths * 3).cumsum(0) - heights * widths * 3
    pixels = torch.randint(0, 256, (int((heights * widths * 3).sum()),), generator=generator).byte()
    many = Photographs(pixels, starts, heights, widths, 3)
    kinds = {"grey": grey, "photographs": many, "drawing": Items(Drawing(), torch.arange(20))}
    labels = torch.arange(20) // 4
    recipe = Recipe(data="x", loss="contrastive", batch=8, dim=4, steps=1, size=28)
    for kind, inputs in kinds.items():
        split = Split(inputs, labels, tuple("abcde"))
        query = replace(split, classes=tuple("fghij"))
        splits = Splits(kind, split, query, query)
        for augment in ["none"] if kind == "drawing" else AUGMENTS:
            own = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
            own(torch.zeros(1, 3 if kind == "photographs" else 1, 28, 28))
            apart = []
            for team in (ALONE, ranks):
                run = Run(replace(recipe, augment=augment), splits, "cpu", backbone=own, ranks=team)
                torch.manual_seed(0)
                mine = own_rows(run, indices, torch.Generator().manual_seed(5))
                apart.append((team.gather(mine, team.sizes(7)), torch.get_rng_state()))
            found[f"{kind} {augment}"] = all(map(torch.equal, *apart))
    return found


def darkened(pictures: Any, size: int, generator: torch.Generator | None = None) -> Tensor:
    """An augmentation of one's own, which knows of no parts of a batch."""
    shades = torch.rand(len(pictures), 1, 1, 1, generator=generator)
    return centred(pictures, size) * shades


class Drawing:
    """A Dataset whose items draw from torch's numbers, one more than the other."""

    def __getitem__(self, i: int) -> Tensor:
        return torch.rand(1, 28, 28) + torch.rand(i % 3).sum()


class Counted:
    """A Dataset that counts how often each item is read."""

    def __init__(self, x: Tensor):
        self.x, self.read = x, np.zeros(len(x), dtype=int)

    def __getitem__(self, i: int) -> Tensor:
        self.read[i] += 1
        return self.x[i]


def evaluation(recipe: Recipe, ranks: Ranks) -> dict:
    """Embeddings and metrics of 77 items, here and in one process, and how often each was read."""
    whole = points(classes=11, each=7)
    counted = Counted(whole.query.tensor)
    query = replace(whole.query, inputs=Items(counted, torch.arange(77)))
    splits = replace(whole, query=query, gallery=query)
    alone, here = (Run(recipe, s, "cpu", ranks=r) for s, r in ((whole, ALONE), (splits, ranks)))
    counted.read[:] = 0
    same = torch.equal(alone.embed(whole.query, 16), here.embed(query, 16))
    read = np.sum(ranks.told(counted.read), axis=0)
    return {
        "same": same,
        "read": read.tolist(),
        "metrics": [examine(alone, whole, final=True), examine(here, splits, final=True)],
    }


def refusals(recipe: Recipe, splits: Splits) -> dict[str, str]:
    """What is said of networks, batches and data that several processes cannot take."""
    rank = current().rank
    cases = {
        "noise": (recipe, {"backbone": Noisy(6, 4)}, splits),
        "mixed": (recipe, {"backbone": Mixed(6, 4)}, splits),
        "noise in chunks": (replace(recipe, chunk=4, head_dropout=0.4), {}, splits),
        "live in chunks": (replace(recipe, chunk=4), {"backbone": Live()}, pictures()),
        "few images": (replace(recipe, loss="cross-entropy", batch=1, per_class=1), {}, splits),
    }
    found = {}
    for name, (changed, own, data) in cases.items():
        try:
            one_step(Run(changed, data, "cpu", ranks=current(), **own))
            found[name] = "taken"
        except ValueError as error:
            found[name] = str(error)
    for name, act in (
        ("different", lambda: current().refuse_others(data=f"of rank {rank}")),
        ("an error in one", lambda: current().agree(lambda: 1 / (rank - 1))),
        ("an error in the first", lambda: current().lead(lambda: 1 / rank)),
    ):
        try:
            act()
        except (ValueError, ZeroDivisionError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def calls(recipe: Recipe, splits: Splits) -> dict[str, list]:
    """What an own loss is called with, and which collectives move gradients, in 2 steps."""
    loss, moved, all_reduce = Recorded(), [], dist.all_reduce
    run = Run(recipe, splits, "cpu", loss=loss, ranks=current())

    def counted(x: Tensor, *args, **options):
        moved.append(x.numel())
        return all_reduce(x, *args, **options)

    dist.all_reduce = counted
    try:
        for _ in range(2):
            one_step(run)
    finally:
        dist.all_reduce = all_reduce
    total = sum(p.numel() for p in run.backbone.parameters())
    return {"seen": loss.seen, "moved": moved, "parameters": [total, len(list(net(run)))]}


def net(run: Run):
    return run.backbone.parameters()


class Recorded(Contrastive):
    """A loss that notes the sizes of what it is called with."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple] = []

    def forward(self, embeddings: Tensor, labels: Tensor, *more: Any) -> Tensor:
        self.seen.append((tuple(embeddings.shape), len(labels)))
        return super().forward(embeddings, labels, *more)


@pytest.fixture(scope="module", params=COUNTS)
def told(request, tmp_path_factory):
    """What each rank came to, and how many there are."""
    count = request.param
    ranks = in_processes(count, everything, tmp_path_factory.mktemp(f"ranks{count}"), count)
    return count, ranks


def cases_of(told) -> dict:
    """The cases of all ranks: what one says, all say."""
    _, (first, *others) = told
    for other in others:
        assert other["cases"] == first["cases"]
    return first["cases"]


def test_no_loss_of_the_registry_is_left_out(told):
    assert set(LOSSES) <= cases_of(told).keys()


def test_1_the_network_has_the_gradient_of_one_process(told):
    for name, case in cases_of(told).items():
        assert case["loss"] < LOSS, name
        assert case["network"] < GRADIENT, name
        assert case["first"] != 0, name


def test_2_so_have_proxies_classifiers_margins_and_graph_layers(told):
    cases = cases_of(told)
    for name, case in cases.items():
        assert case["of the loss"] < GRADIENT, name
    own = {name for name in LOSSES if cases[name]["parameters of the loss"]}
    assert own == {name for name in LOSSES if any(True for _ in loss_of(name).parameters())}
    assert {"proxy-anchor", "cross-entropy", "margin", "graph-refinement", "hdml"} <= own


def loss_of(name: str) -> nn.Module:
    return make(name, classes=10, dim=4, features=24 if wants_features(name) else None)


def test_3_no_gradient_has_a_factor(told):
    for name, case in cases_of(told).items():
        for factor in case["factors"]:
            assert factor == pytest.approx(1, abs=1e-9), name


def test_five_steps_of_adam_leave_the_weights_of_one_process(told):
    for name, case in cases_of(told).items():
        assert case["weights"] < WEIGHTS, name
        assert case["later losses"] < WEIGHTS, name


def test_4_rows_are_gathered_in_the_order_of_ranks(told):
    count, ranks = told
    for one in ranks:
        found = one["order"]
        assert sum(found["sizes"]) == 7
        assert len(set(found["sizes"])) == 2
        assert found["unequal"]
        assert found["equal"] == list(range(count))
        assert found["some have none"] == [[5.0, 5.0]] * 3
    assert {f"miner {name}" for name in MINERS} <= cases_of(told).keys()


def test_5_a_memory_is_that_of_one_process_in_every_rank(told):
    _, ranks = told
    for name in MEMORIES:
        for one in ranks:
            found = one["memory"][name]
            assert found["labels"]
            assert found["size"] == min(3 * BATCH[told[0]]["batch"], 25 if "trip" in name else 40)
            assert found["apart"] < 1e-9
            assert found["mine"] == ranks[0]["memory"][name]["mine"]


def test_6_slices_are_of_unequal_sizes_and_make_up_the_batch(told):
    count, _ = told
    images = cases_of(told)["contrastive"]["images"]
    assert len(images) == count
    assert sum(images) == 5 * BATCH[count]["batch"]
    assert len(set(images)) > 1


def test_7_an_embedding_may_lie_in_memory_as_it_likes(told):
    assert not Crossed()(torch.zeros(3, 6)).is_contiguous()
    assert cases_of(told)["not contiguous"]["network"] < GRADIENT
    assert all(one["order"]["strided"] for one in told[1])


def test_8_a_rank_without_a_pair_learns_from_those_of_the_others(told):
    count, ranks = told
    assert cases_of(told)["one image a rank"]["images"] == ([5, 10] if count == 2 else [5, 5, 5])
    for one in ranks:
        assert not any(one["no kin"])


def test_9_the_loss_always_sees_the_whole_batch_against_the_whole(told):
    count, ranks = told
    batch = BATCH[count]["batch"]
    for one in ranks:
        assert one["calls"]["seen"][-2:] == [((batch, 4), batch)] * 2


def test_10_slices_together_are_the_batch_of_one_process(told):
    for one in told[1]:
        assert len(one["rows"]) == 11
        assert all(one["rows"].values()), one["rows"]


def test_11_every_sampler_draws_the_batches_of_one_process(told):
    assert set(BY_SAMPLER) == set(SAMPLERS)
    for one in told[1]:
        assert all(one["batches"].values()), one["batches"]


def test_12_evaluation_embeds_each_item_once(told):
    _, ranks = told
    for one in ranks:
        found = one["evaluation"]
        assert found["same"]
        assert found["read"] == [1] * 77
        alone, here = found["metrics"]
        assert alone == here


def test_13_batch_normalisation_has_the_statistics_of_the_whole_batch(told):
    cases = cases_of(told)
    for name in ("live", "live, the trunk rests", "frozen"):
        assert cases[name]["weights"] < WEIGHTS  # running statistics are among them
        assert cases[name]["network"] < GRADIENT


def test_14_a_batch_in_chunks_moves_gradients_once_a_step(told):
    for one in told[1]:
        total, count = one["calls"]["parameters"]
        assert one["calls"]["moved"] == [total + count] * 2
    assert set(CHUNKS) <= cases_of(told).keys()


REFUSED = {
    "noise": "Noisy has something that looks across a batch, or draws noise",
    "mixed": "Mixed has something that looks across a batch",
    "noise in chunks": "gets a batch in pieces",
    "live in chunks": "gets a batch in pieces",
    "few images": "a batch of 1 cannot be cut in slices",
    "different": "ValueError: the processes of one run were given different data",
    "an error in one": "ZeroDivisionError",
    "an error in the first": "ZeroDivisionError",
}


def test_what_would_hang_on_the_number_of_processes_is_refused_by_all(told):
    for one in told[1]:
        assert one["refusals"].keys() == REFUSED.keys()
        for name, said in REFUSED.items():
            assert said in one["refusals"][name], one["refusals"][name]
