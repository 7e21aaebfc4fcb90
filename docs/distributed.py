"""Measures which library has the gradient of one process under DDP: python docs/distributed.py.

Two gloo processes on loopback, double precision, a batch of 12 cut in halves. The gradient g that a
library leaves in rank 0 is compared with g_1, that of the same loss on the whole batch in one
process:

    factor = g . g_1 / |g_1|^2,    residue = |g - factor g_1| / |g|

Right is a factor of 1 and a residue of 0. Peers that are not installed keep the rows that they had:
install open-metric-learning, lightly and sentence-transformers into an environment of their own.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

DOCS = Path(__file__).parent
STORED, PAGE, HEAD = (DOCS / "results" / "distributed.json", DOCS / "distributed.md", "## Measured")
RANKS = 2
ITEMS, FEATURES, DIM, CLASSES = 12, 6, 4, 4


@dataclass(frozen=True)
class Row:
    """One way of a library: factor and residue of the network's gradient, and of the proxies'."""

    library: str
    way: str
    network: tuple[float, float]
    proxies: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Way:
    """A loss as a library's documentation has it under DDP, beside the same loss in one process.

    given: "labels" or "views": what a call takes beside the embeddings.
    alone, among: make the loss; a loss in DDP has its own parameters averaged.
    """

    package: str
    name: str
    given: str
    alone: Callable[[], nn.Module]
    among: Callable[[], nn.Module]


def pml() -> list[Way]:
    from pytorch_metric_learning import losses
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper as Wrapper

    def proxy() -> nn.Module:
        torch.manual_seed(0)
        return losses.ProxyAnchorLoss(CLASSES, DIM).double()

    name, plain = "pytorch-metric-learning", losses.ContrastiveLoss
    smooth = losses.MultiSimilarityLoss
    return [
        Way(name, "ContrastiveLoss, no wrapper", "labels", plain, plain),
        Way(name, "ContrastiveLoss, wrapper", "labels", plain, lambda: Wrapper(plain())),
        Way(name, "ContrastiveLoss, efficient", "labels", plain, lambda: Wrapper(plain(), True)),
        Way(name, "MultiSimilarityLoss, wrapper", "labels", smooth, lambda: Wrapper(smooth())),
        Way(
            name,
            "MultiSimilarityLoss, efficient",
            "labels",
            smooth,
            lambda: Wrapper(smooth(), True),
        ),
        Way(name, "ProxyAnchorLoss, in DDP", "labels", proxy, lambda: DDP(proxy())),
        Way(name, "ProxyAnchorLoss, wrapper", "labels", proxy, lambda: Wrapper(proxy())),
        Way(name, "ProxyAnchorLoss, efficient", "labels", proxy, lambda: Wrapper(proxy(), True)),
    ]


def oml() -> list[Way]:
    from oml.losses.arcface import ArcFaceLoss
    from oml.losses.triplet import TripletLossWithMiner
    from oml.miners.inbatch_all_tri import AllTripletsMiner

    def triplets() -> nn.Module:
        return TripletLossWithMiner(margin=None, miner=AllTripletsMiner())

    def arcface() -> nn.Module:
        torch.manual_seed(0)
        return ArcFaceLoss(DIM, CLASSES, s=8.0).double()

    name = "open-metric-learning"
    return [
        Way(name, "TripletLossWithMiner, all triplets", "labels", triplets, triplets),
        Way(name, "ArcFaceLoss, in DDP", "labels", arcface, lambda: DDP(arcface())),
    ]


def lightly() -> list[Way]:
    from lightly.loss import DCLLoss, NTXentLoss

    return [
        Way("lightly", f"{kind.__name__}, gather_distributed={gather}", "views", kind,
            lambda kind=kind, gather=gather: kind(gather_distributed=gather))
        for kind in (NTXentLoss, DCLLoss)
        for gather in (False, True)
    ]  # fmt: skip


def sentences() -> list[Way]:
    from sentence_transformers.sentence_transformer import losses

    class Given(nn.Module):
        """One of its losses, called with embeddings."""

        def __init__(self, loss: Any):
            super().__init__()
            self.loss = loss

        def forward(self, *inputs: Tensor) -> Tensor:
            *embeddings, labels = inputs
            return self.loss.compute_loss_from_embeddings(embeddings, labels)

    def ranking(gather: bool = False) -> nn.Module:
        made = losses.MultipleNegativesRankingLoss
        return Given(made(nn.Identity(), gather_across_devices=gather))

    def triplets() -> nn.Module:
        return Given(losses.BatchAllTripletLoss(nn.Identity(), margin=5.0))

    name, long = "sentence-transformers", "MultipleNegativesRankingLoss"
    return [
        Way(name, f"{long}, no gathering", "views and labels", ranking, ranking),
        Way(
            name,
            f"{long}, gather_across_devices",
            "views and labels",
            ranking,
            lambda: ranking(True),
        ),
        Way(name, "BatchAllTripletLoss", "labels", triplets, triplets),
    ]


PEERS = {
    "pytorch-metric-learning": pml,
    "open-metric-learning": oml,
    "lightly": lightly,
    "sentence-transformers": sentences,
}


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Two views (B, F) of a batch, and labels (B,): classes of three, one after the other."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(CLASSES).repeat_interleave(ITEMS // CLASSES)
    x = torch.randn(ITEMS, FEATURES, generator=generator, dtype=torch.double)
    return x, x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.double), labels


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, DIM)).double()


def gradients(net: nn.Module, loss: nn.Module, given: str, part: slice) -> tuple[Tensor, Tensor]:
    """The gradients of the network and of the loss's own parameters, by the items of a part."""
    one, two, labels = (x[part] for x in batch())
    if "views" in given:
        inputs = net(torch.cat([one, two])).chunk(2)
        loss(*inputs, *([labels] if "labels" in given else [])).backward()
    else:
        loss(net(one), labels).backward()
    return vector(net.parameters()), vector(loss.parameters())


def vector(parameters: Iterable[nn.Parameter]) -> Tensor:
    found = [p.grad.flatten() for p in parameters if p.grad is not None]
    return torch.cat([torch.zeros(0, dtype=torch.double), *found])


def beside(g: Tensor, right: Tensor) -> tuple[float, float]:
    """Factor and residue."""
    factor = (g @ right / (right @ right)).item()
    return factor, ((g - factor * right).norm() / g.norm()).item()


def measured(way: Way) -> Row:
    """What a way of a peer comes to in this rank."""
    share = ITEMS // RANKS
    part = slice(dist.get_rank() * share, (dist.get_rank() + 1) * share)
    right = gradients(network(), way.alone(), way.given, slice(None))
    try:
        found = gradients(DDP(network()), way.among(), way.given, part)
    except Exception as error:
        return Row(way.package, way.name, (0.0, 0.0), None, f"refused: {str(error)[:60]}")
    pairs = [beside(g, r) if len(r) else None for g, r in zip(found, right, strict=True)]
    assert pairs[0] is not None
    return Row(way.package, way.name, pairs[0], pairs[1])


def ours() -> list[Row]:
    """Nearkin's own training step, for every loss that it names: the worst of all, and some."""
    from nearkin.data import Split, Splits
    from nearkin.registry import LOSSES
    from nearkin.runs.loop import one_step
    from nearkin.runs.manners import seeded
    from nearkin.runs.ranks import ALONE, current
    from nearkin.runs.recipe import Recipe
    from nearkin.runs.run import Run

    x, _, labels = batch()
    parts = [Split(x.float(), labels, tuple(f"{p}{c}" for c in range(CLASSES))) for p in "ab"]
    splits, rows = Splits("batch", parts[0], parts[1], parts[1]), []
    for name in LOSSES:
        recipe = Recipe(data="batch", backbone="mlp", dim=DIM, loss=name, batch=12, per_class=3)
        found = []
        for ranks in (ALONE, current()):
            run = Run(recipe, splits, "cpu", ranks=ranks)
            for module in (run.backbone.module, run.loss):
                module.double()
            run.inputs = x
            if run.seen is not None:
                run.__dict__["seen"] = x
            both: list[Tensor] = []
            run.optimizer.step = lambda run=run, both=both: both.extend(
                [vector(run.backbone.module.parameters()), vector(run.loss.parameters())]
            )
            with seeded(0):
                one_step(run)
            found.append(both)
        pairs = [beside(g, r) if len(r) else None for r, g in zip(*found, strict=True)]
        assert pairs[0] is not None
        rows.append(Row("nearkin", name, pairs[0], pairs[1]))
    return rows


def act(rank: int, file: Path, out: Path) -> None:
    """One of the ranks: measure all that is installed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS)
    rows = ours()
    for ways in PEERS.values():
        try:
            rows += [measured(way) for way in ways()]
        except ImportError:
            continue
    if rank == 0:
        out.write_bytes(pickle.dumps(rows))
    dist.destroy_process_group()


def measure() -> dict[str, Any]:
    """Rows and versions, those of peers that are not here as they were."""
    before = json.loads(STORED.read_text()) if STORED.exists() else {"rows": [], "versions": {}}
    with tempfile.TemporaryDirectory() as folder:
        out, context = Path(folder, "rows"), get_context("spawn")
        ranks = [
            context.Process(target=act, args=(rank, Path(folder, "meet"), out))
            for rank in range(RANKS)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(600)
        rows = [asdict(row) for row in pickle.loads(out.read_bytes())]
    here = {row["library"] for row in rows}
    versions = {name: installed(name) for name in ("torch", *sorted(here))}
    rows += [row for row in before["rows"] if row["library"] not in here]
    return {
        "date": date.today().isoformat(),
        "versions": {**before["versions"], **versions},
        "rows": rows,
    }


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "this checkout"


def table(found: dict[str, Any]) -> str:
    """The measured part of the page."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(found["versions"].items()))
    mine = [row for row in found["rows"] if row["library"] == "nearkin"]
    own = [row["proxies"] for row in mine if row["proxies"]]
    worst = Row(
        "nearkin",
        f"each of its {len(mine)} losses; the worst of them",
        furthest(row["network"] for row in mine),
        furthest(own),
    )
    others = [Row(**row) for row in found["rows"] if row["library"] != "nearkin"]
    lines = ["| library | way | network: factor | residue | proxies: factor | residue |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += [line(row) for row in (worst, *others)]
    return f"{HEAD}\n\n`python docs/distributed.py`, {found['date']}: {versions}.\n\n" + "\n".join(
        lines
    )


def furthest(pairs: Iterable[Any]) -> tuple[float, float]:
    """The factor that is farthest from 1, and the largest residue."""
    factors, residues = zip(*pairs, strict=True)
    return max(factors, key=lambda f: abs(f - 1)), max(residues)


def line(row: Row) -> str:
    if row.note:
        return f"| {row.library} | {row.way} | {row.note} | | | |"
    cells = []
    for pair in (row.network, row.proxies):
        cells += (
            [f"{pair[0]:.3f}", f"{pair[1]:.1g}" if pair[1] > 1e-9 else "0"] if pair else ["", ""]
        )
    return f"| {row.library} | {row.way} | {' | '.join(cells)} |"


def main() -> None:
    found = measure()
    STORED.write_text(json.dumps(found, indent=1) + "\n")
    text = PAGE.read_text().partition(HEAD)[0]
    PAGE.write_text(text + table(found) + "\n")


if __name__ == "__main__":
    main()
