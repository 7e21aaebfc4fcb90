"""Checkpoints: where a run stands, written whole, and taken up only where every part of it fits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearkin import models
from nearkin.data.neighbours import NEAREST
from nearkin.files import write_whole
from nearkin.runs import build
from nearkin.runs.manners import seeded

if TYPE_CHECKING:
    from nearkin.runs.run import Run

KEPT = {"recipe", "data", "threads", "step", "epochs", "seconds", "loss_sum", "backbone", "loss"}
KEPT |= {"optimizer", "average", "known", "processes"}
"""What a checkpoint holds."""
PROCESS = {"rank": int, "host": str, "pid": int, "images": int}
"""What it holds of each process that has been at work."""


class OtherData(ValueError):
    """A checkpoint was made on other data than lie there now."""


def save(run: Run, path: Path) -> None:
    """Write where the run stands, whole or not at all: tensors and plain data only.

    Every rank of a run stands at the same place, and rank 0 writes it: any number of processes can
    go on from there.
    """
    if not run.ranks.first:
        return
    state = {
        "recipe": run.recipe.plain(),
        "data": run.data_fingerprint,
        "threads": threads(run),
        "step": run.step,
        "epochs": run.epochs,
        "seconds": [run.seconds, run.other_seconds],
        "loss_sum": run.loss_sum,
        "backbone": run.backbone.module.state_dict(),
        "loss": run.loss.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.hold.state_dict(),
        "known": run.known,
        "processes": [*run.processes_before, *run.processes],
    }
    write_whole(path, lambda file: torch.save(state, file))


def threads(run: Run) -> list[int]:
    """The numbers of threads under which the run was carried out so far, in their order."""
    now = torch.get_num_threads()
    return [*run.threads_before, now] if run.threads_before[-1:] != [now] else run.threads_before


def restore(run: Run, path: Path) -> None:
    """Put the run where `save` left it.

    Under another number of threads it goes on with a warning: sums are then taken in another order,
    and the last bits of weights differ from those of a run that was never stopped.

    Raises:
        OtherData: the data have changed.
        ValueError: it is no checkpoint, or one of another recipe, or a part of it does not fit.
    """
    state = {"processes": [], **models.read(path)}  # none in a checkpoint of before
    if state.keys() != KEPT or not isinstance(state["recipe"], dict):
        raise ValueError(f"{path} is not the checkpoint of a run")
    recipe = run.recipe.plain()
    if not same(state["recipe"], recipe):
        changed = [k for k, v in recipe.items() if not same(state["recipe"].get(k), v)]
        where = ", ".join(changed) or "its fields"
        raise ValueError(f"{path} is a checkpoint of another recipe: it differs in {where}")
    if not same(state["data"], run.data_fingerprint):
        raise OtherData(f"{path} was made on other data: delete it to begin anew")
    try:
        refuse_odd_numbers(run, state)
        refuse_odd_knowledge(run, state["known"])
        refuse_misfit("backbone", run.backbone.module, state["backbone"])
        refuse_misfit("loss", run.loss, state["loss"])
        refuse_odd_optimizer(run, state["optimizer"])
        run.backbone.module.load_state_dict(state["backbone"])
        run.loss.load_state_dict(state["loss"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.hold.load_state_dict(state["average"])
    except (ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit its run: {why}; delete it to begin anew") from None
    run.step, run.epochs = state["step"], state["epochs"]
    run.loss_sum = state["loss_sum"].to(run.device)
    run.seconds, run.other_seconds = state["seconds"]
    run.threads_before = state["threads"]
    run.known, run.processes_before = state["known"], state["processes"]
    if run.known:
        run.draw(run.step // len(run.batches))
    now, before = torch.get_num_threads(), state["threads"][-1]
    if now != before:
        warnings.warn(
            f"{path} was left by {before} threads, and {now} go on: the last bits of what they "
            "train differ from a run that was never stopped",
            stacklevel=2,
        )


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are equal, kind by kind: a tensor, whose == is one more, never is.

    >>> same({"a": [1, 2.5]}, {"a": [1, 2.5]}), same([True], [1]), same(torch.ones(2), None)
    (True, False, False)
    """
    if type(a) is not type(b) or isinstance(a, Tensor):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def refuse_odd_numbers(run: Run, state: Mapping[str, Any]) -> None:
    """Refuse counts, seconds and records that no run leaves."""
    step, total = state["step"], state["loss_sum"]
    if type(step) is not int or not 0 <= step <= run.total:
        raise ValueError(f"wanted a step in 0..{run.total}, got {step!r:.40}")
    if not isinstance(total, Tensor) or total.shape or total.dtype != torch.double:
        raise ValueError("wanted the sum of losses as one number in double precision")
    for name, kind in (("seconds", float), ("threads", int), ("epochs", dict)):
        values = state[name]
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise ValueError(f"wanted {name} as a list of {kind.__name__}, got {values!r:.40}")
    if len(state["seconds"]) != 2 or not state["threads"]:
        raise ValueError("wanted 2 numbers of seconds, and the numbers of threads")
    for process in state["processes"] if isinstance(state["processes"], list) else [None]:
        if not isinstance(process, dict) or {k: type(v) for k, v in process.items()} != PROCESS:
            raise ValueError(f"wanted processes as lists of {', '.join(PROCESS)}")
    done = [epoch.get("steps") for epoch in state["epochs"]]
    if not all(type(steps) is int for steps in done) or sum(done) > step:
        raise ValueError(f"wanted epochs of {step} steps, got {done!r:.40}")


def refuse_odd_knowledge(run: Run, known: Any) -> None:
    """Refuse near classes or edges that are none of the training images."""
    classes, images = len(run.splits.train.classes), len(run.splits.train)
    bounds = {"near": (-1, classes, (classes, NEAREST)), "edges": (0, images, (None, 2))}
    if not isinstance(known, dict) or not known.keys() <= bounds.keys():
        raise ValueError("wanted near classes or edges by name")
    for name, found in known.items():
        low, high, (rows, columns) = bounds[name]
        if not isinstance(found, Tensor) or found.dtype != torch.int64:
            raise ValueError(f"wanted {name} as whole numbers")
        if found.shape != (len(found) if rows is None else rows, columns):
            raise ValueError(f"{name} is {form_of(found)}, wanted {columns} columns")
        if not ((found >= low) & (found < high)).all():
            raise ValueError(f"wanted {name} in {low}..{high - 1}")


def refuse_misfit(name: str, module: nn.Module, state: Any) -> None:
    """Refuse parameters of other names, shapes or types than those of the module."""
    if not isinstance(state, dict):
        raise ValueError(f"wanted the {name} as a dictionary, got {type(state).__name__}")
    for key in state.keys() - module.state_dict().keys():
        raise ValueError(f"the {name} has no {key!r}")
    for key, parameter in module.named_parameters():
        found = state.get(key)
        if not isinstance(found, Tensor):
            raise ValueError(f"the {name} lacks {key!r}")
        if found.shape != parameter.shape or found.dtype != parameter.dtype:
            raise ValueError(
                f"{key!r} of the {name} is {form_of(found)}, wanted {form_of(parameter)}"
            )


def refuse_odd_optimizer(run: Run, state: Any) -> None:
    """Refuse a state that an optimiser like the run's would not have: where shapes are others, a
    fused step writes into memory that is not its own."""
    now = run.optimizer.state_dict()
    if not isinstance(state, dict) or state.keys() != now.keys():
        raise ValueError("wanted the optimizer's state and groups")
    if not same(plain_groups(state["param_groups"]), plain_groups(now["param_groups"])):
        raise ValueError("the optimizer's groups are not those of the recipe")
    numbers = [i for group in now["param_groups"] for i in group["params"]]
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    known, wanted = dict(zip(numbers, parameters, strict=True)), state_of_one_step(run)
    if not isinstance(state["state"], dict) or not state["state"].keys() <= known.keys():
        raise ValueError("the optimizer's state is not of the run's parameters")
    for number, entries in state["state"].items():
        if not isinstance(entries, dict) or entries.keys() != wanted.keys():
            raise ValueError(f"the optimizer's state of parameter {number} has other parts")
        for key, value in entries.items():
            like = wanted[key]
            if isinstance(like, Tensor) != isinstance(value, Tensor):
                raise ValueError(f"{key!r} of the optimizer is of another kind")
            if isinstance(like, Tensor) and isinstance(value, Tensor):
                shape = known[number].shape if like.ndim else like.shape
                if value.shape != shape or value.dtype != like.dtype:
                    raise ValueError(
                        f"{key!r} of the optimizer is {form_of(value)}, wanted {tuple(shape)}"
                    )


def plain_groups(groups: Any) -> Any:
    """An optimiser's groups without the learning rates, which every step sets anew."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return None
    return [{k: v for k, v in group.items() if k != "lr"} for group in groups]


def state_of_one_step(run: Run) -> dict[str, Any]:
    """What the recipe's optimiser holds of one parameter after one step, of a matrix 3 x 2."""
    with seeded(0):
        layer = nn.Linear(2, 3, bias=False).to(run.device)
    optimizer = build.make_optimizer(run.recipe, layer, nn.Module())
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    return dict(optimizer.state[layer.weight])


def form_of(x: Tensor) -> str:
    """A tensor's shape and type."""
    return f"{tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
