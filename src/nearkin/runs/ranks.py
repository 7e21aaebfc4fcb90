"""The processes of one run: each embeds a slice of every batch, and the loss sees the whole.

All ranks hold the same network, loss and optimiser, and draw the same batches. In a step

    1. rank r embeds rows r B / W to (r + 1) B / W, and gathers those of the others
    2. every rank takes the loss of the whole batch, as one process would
    3. each goes back through the network from the gradient of its own rows
    4. the gradients are summed: of the network each rank's share, of what the whole loss itself
       leaves (proxies, classifiers, graph layers) that of rank 0 alone

So no gradient has a factor W, whatever the loss, and all ranks take the same step.

Dimensions: B batch, W processes.
"""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(hours=2)
"""How long a rank waits for another that is still there: rank 0 measures alone."""

Found = TypeVar("Found")


class Lost(OSError):
    """Another process of the run has ended, or can no longer be reached."""


class Ranks:
    """The W processes that carry out one run, seen from one of them; by default this one alone.

    group: torch's process group; None: this process is alone.
    rank: 0..W-1, of this process.
    count: W.
    """

    def __init__(self, group: Any = None):
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.count = 1 if group is None else dist.get_world_size(group)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which measures and writes."""
        return self.rank == 0

    def own(self, total: int, rank: int | None = None) -> slice:
        """The rows of a batch that a rank embeds; their numbers differ by one at most."""
        rank = self.rank if rank is None else rank
        return slice(rank * total // self.count, (rank + 1) * total // self.count)

    def sizes(self, total: int) -> list[int]:
        """How many rows of a batch each rank embeds."""
        return [len(range(total)[self.own(total, rank)]) for rank in range(self.count)]

    def gather(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows (n, ...) of all ranks, rank 0's first; a constant, where nothing is to learn.

        sizes: n of each rank.
        """
        if self.group is None:
            return rows.detach()
        most, here = max(sizes), rows.detach().contiguous()
        if len(here) < most:  # a collective wants equal shapes, and stalls for ever without them
            here = torch.cat([here, here.new_zeros(most - len(here), *here.shape[1:])])
        found = here.new_empty(self.count * most, *here.shape[1:])
        with lost():
            dist.all_gather_into_tensor(found, here, self.group)
        if min(sizes) == most:
            return found
        parts = zip(found.split(most), sizes, strict=True)
        return torch.cat([part[:size] for part, size in parts])

    def joint(self, rows: Tensor | None) -> Tensor:
        """The rows (n, D) of all ranks on the CPU, rank 0's first; n may be other in each, and None
        says that there are none here."""
        if self.group is None:
            assert rows is not None
            return rows
        shapes = self.told(None if rows is None else tuple(rows.shape))
        shape = next(s for s in shapes if s)
        here = self.movable(torch.empty(0, *shape[1:]) if rows is None else rows)
        return self.gather(here, [s[0] if s else 0 for s in shapes]).cpu()

    def movable(self, x: Tensor) -> Tensor:
        """A tensor of the CPU where the group can move it: NCCL alone moves what is on a card."""
        return x.cuda() if dist.get_backend(self.group) == "nccl" else x

    def summed(self, x: Tensor) -> Tensor:
        """The sum of x over ranks, added in the order of ranks, so that it is the same in all."""
        return self.gather(x[None], [1] * self.count).sum(0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over ranks; a parameter that has none in any rank keeps none."""
        for kind in by_type(parameters):
            present = [float(p.grad is not None) for p in kind]
            for p in kind:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            pieces = [p.grad.flatten() for p in kind if p.grad is not None]
            flat = torch.cat([*pieces, pieces[0].new_tensor(present)])
            with lost():
                dist.all_reduce(flat, group=self.group)
            *pieces, present = flat.split([*(p.numel() for p in kind), len(kind)])
            for p, piece, some in zip(kind, pieces, present.tolist(), strict=True):
                if not some:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.copy_(piece.view_as(p))

    def align(self, *modules: nn.Module) -> None:
        """Let all ranks have the parameters and buffers of rank 0's."""
        for module in modules if self.count > 1 else ():
            for x in (*module.parameters(), *module.buffers()):
                if x.numel():
                    whole = x.detach().contiguous()
                    with lost():
                        dist.broadcast(whole, group=self.group, group_src=0)
                    with torch.no_grad():
                        x.copy_(whole)

    def told(self, value: Found) -> list[Found]:
        """What each rank has to say, in their order."""
        if self.group is None:
            return [value]
        found: list[Any] = [None] * self.count
        with lost():
            dist.all_gather_object(found, value, self.group)
        return found

    def lead(self, act: Callable[[], Found]) -> Found:
        """What rank 0 comes to by act(), while the others wait; an error there is all ranks'."""
        if self.count == 1:
            return act()
        told: list[Any] = [None]
        if self.first:
            told = [outcome(act)]
        with lost():
            dist.broadcast_object_list(told, group=self.group, group_src=0)
        value, error = told[0]
        if error is not None:
            raise error if self.first else from_elsewhere(error)
        return value

    def agree(self, act: Callable[[], Found]) -> Found:
        """What each rank comes to by act(), once all have; an error in one is an error in all.

        act: moves nothing between ranks.
        """
        if self.count == 1:
            return act()
        value, error = outcome(act)
        errors = {rank: one for rank, one in enumerate(self.told(error)) if one is not None}
        if errors:
            culprit = min(errors)
            raise errors[culprit] if self.rank == culprit else from_elsewhere(errors[culprit])
        return value

    def refuse_others(self, **things: Any) -> None:
        """Refuse what is not the same in all ranks."""
        for name, value in things.items():
            found = self.told(value)
            if any(one != found[0] for one in found):
                raise ValueError(f"the processes of one run were given different {name}")

    @contextmanager
    def file(self, path: Path) -> Iterator[Path | None]:
        """A file that rank 0 can read, or a copy of it; None where there is none."""
        content = self.lead(lambda: content_of(path, self.count))
        if content is None or self.first:
            yield path if content is not None else None
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            copy.write_bytes(content)
            yield copy


ALONE = Ranks()


def current() -> Ranks:
    """The ranks of torch's process group, where one is initialised; else this process alone."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.group.WORLD)
    return ALONE


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """A context in which this process is one of those that torchrun, or --devices, has started;
    alone, where the environment names none, and as it is, where it has joined them already."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ or dist.is_initialized():
        yield current()
        return
    on_cards = device.startswith("cuda")
    local, processes = (int(os.environ.get(f"LOCAL_{n}", 0)) for n in ("RANK", "WORLD_SIZE"))
    if on_cards:
        torch.cuda.set_device(local % torch.cuda.device_count())
    alone_on_card = on_cards and processes <= torch.cuda.device_count()
    with lost():
        dist.init_process_group("cpu:gloo,cuda:nccl" if alone_on_card else "gloo", timeout=PATIENCE)
    try:
        yield current()
    finally:
        dist.destroy_process_group()


def here() -> tuple[str, int]:
    """This process: its host and its number there."""
    return socket.gethostname(), os.getpid()


@contextmanager
def lost() -> Iterator[None]:
    """A collective that fails as `Lost`."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's
        why = " ".join(str(error).split())[:120]
        raise Lost(
            "another process of this run has ended, or cannot be reached; the same command goes on "
            f"from the last checkpoint ({why})"
        ) from None


def by_type(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters that learn, each once, in groups of one type of number."""
    kinds: dict[torch.dtype, dict[int, nn.Parameter]] = {}
    for p in parameters:
        if p.requires_grad:
            kinds.setdefault(p.dtype, {})[id(p)] = p
    return [list(kind.values()) for kind in kinds.values()]


def outcome(act: Callable[[], Found]) -> tuple[Any, Exception | None]:
    """What act() gives, or its error, which another process can be told."""
    try:
        return act(), None
    except Exception as error:
        return None, told_of(error)


def told_of(error: Exception) -> Exception:
    """An error as another process can be told of it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def from_elsewhere(error: Exception) -> Exception:
    """An error that another rank has met, and tells of."""
    error.elsewhere = True  # type: ignore[attr-defined]
    return error


def content_of(path: Path, count: int) -> bytes | None:
    """A file's bytes, or none where it is not there; nobody needs them where there is one rank."""
    if not path.exists():
        return None
    return path.read_bytes() if count > 1 else b""
