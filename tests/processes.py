"""Several processes of one run, on the CPU and on loopback: what the distributed tests are done by.

`in_processes` starts W of them, which join a gloo group and call a function of a module of tests.
"""

import os
import pickle
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearkin.data import Split, Splits
from nearkin.runs.fresh import fresh
from nearkin.runs.loop import one_step
from nearkin.runs.manners import seeded
from nearkin.runs.ranks import ALONE, Ranks, current
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

SECONDS = 900  # in which a process must end, beside whatever else is at work


def in_processes(count: int, act: Callable, folder: Path, *given: Any) -> list[Any]:
    """What act(*given) gives in each of `count` ranks; an error in one is an error here."""
    ranks = [
        fresh().Process(target=as_rank, args=(rank, count, folder, act, given))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(SECONDS)
    for process in ranks:
        if process.is_alive():
            process.kill()
            process.join()
    assert [process.exitcode for process in ranks] == [0] * count
    return [pickle.loads((folder / f"found-{rank}").read_bytes()) for rank in range(count)]


def as_rank(rank: int, count: int, folder: Path, act: Callable, given: tuple) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    join(rank, count, folder / "rendezvous")
    try:
        (folder / f"found-{rank}").write_bytes(pickle.dumps(act(*given)))
    finally:
        dist.destroy_process_group()


def join(rank: int, count: int, file: Path, seconds: int = 60) -> None:
    """Become a rank of a gloo group that meets by a file."""
    patience = timedelta(seconds=seconds)
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=count, timeout=patience
    )


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def points(classes: int = 10, each: int = 8, features: int = 6, seed: int = 0) -> Splits:
    """Classes of vectors train, and as many others test."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    parts = []
    for part in ("train", "test"):
        x = random.normal(size=(classes, features))[y] + 0.5 * random.normal(
            size=(len(y), features)
        )
        names = tuple(f"{part} {c}" for c in range(classes))
        parts.append(Split(torch.from_numpy(x).float(), torch.from_numpy(y), names))
    return Splits("points", parts[0], parts[1], parts[1])


def double(run: Run) -> Run:
    """A run on features in double precision."""
    run.backbone.module.double()
    run.loss.double()
    run.inputs = cast(Tensor, run.inputs).double()
    train = run.splits.train
    run.splits = replace(run.splits, train=replace(train, inputs=run.inputs))
    if run.hold.averaged is not None:
        run.hold.averaged.double()
    if run.seen is not None:
        run.__dict__["seen"] = run.inputs
    for _, _, start in run.hold.groups:
        start[:] = [x.double() for x in start]
    return run


def followed(recipe: Recipe, splits: Splits, ranks: Ranks, steps: int = 5, **own: Any) -> dict:
    """The loss and the gradients of the first step, and the weights and buffers after some."""
    with seeded(0):
        own = {name: make() for name, make in own.items()}
    run = double(Run(recipe, splits, "cpu", ranks=ranks, **own))
    found: dict[str, Any] = {"losses": []}
    step = run.optimizer.step

    def stepped(*args, **options):
        found.setdefault("gradients", {n: g.clone() for n, g in gradients(run).items()})
        return step(*args, **options)

    run.optimizer.step = stepped
    total = 0.0
    for _ in range(steps):
        with seeded(run.step):
            one_step(run)
        found["losses"].append(run.loss_sum.item() - total)
        total = run.loss_sum.item()
    state = {**named(run.backbone.module, "network"), **named(run.loss, "loss")}
    return found | {"state": state, "images": [p["images"] for p in run.processes]}


def gradients(run: Run) -> dict[str, torch.Tensor]:
    """Of the network and of the loss, by name; those that are not there are left out."""
    parts = (("network", run.backbone.module), ("loss", run.loss))
    return {
        f"{part} {name}": p.grad
        for part, module in parts
        for name, p in module.named_parameters()
        if p.grad is not None
    }


def named(module: nn.Module, part: str) -> dict[str, torch.Tensor]:
    return {f"{part} {name}": x.detach().clone() for name, x in module.state_dict().items()}


def joined(tensors: dict[str, Tensor], part: str) -> Tensor:
    """All that belongs to the network, or to the loss, as one vector."""
    found = [t.flatten().double() for name, t in tensors.items() if name.startswith(part)]
    return torch.cat([torch.zeros(1, dtype=torch.double), *found])


def apart(one: dict[str, Tensor], other: dict[str, Tensor], part: str) -> float:
    """|x - y| / |x| of a part."""
    assert one.keys() == other.keys(), set(one) ^ set(other)
    x, y = joined(one, part), joined(other, part)
    return ((x - y).norm() / x.norm().clamp_min(1e-12)).item()


def compared(cases: dict[str, tuple[Recipe, dict]], splits: Splits) -> dict[str, dict]:
    """Of each case, how far what several processes come to is from what one comes to."""
    found = {}
    for name, (recipe, own) in cases.items():
        alone, here = (followed(recipe, splits, ranks, **own) for ranks in (ALONE, current()))
        losses = [np.array(each["losses"]) for each in (alone, here)]
        pulls = alone["gradients"], here["gradients"]
        factors = []
        for part in ("network", "loss"):
            x, y = (joined(each, part) for each in pulls)
            factors += [(x @ y / (x @ x)).item()] if x.any() else []
        found[name] = {
            "loss": abs(losses[1][0] / losses[0][0] - 1).item(),
            "later losses": (np.abs(losses[1] - losses[0]).max() / losses[0].max()).item(),
            "first": losses[0][0].item(),
            "network": apart(*pulls, "network"),
            "of the loss": apart(*pulls, "loss"),
            "parameters of the loss": sum(key.startswith("loss") for key in pulls[0]),
            "factors": factors,
            "weights": max(apart(alone["state"], here["state"], p) for p in ("network", "loss")),
            "images": here["images"],
        }
    return found
