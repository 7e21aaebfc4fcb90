"""The epoch that validation chose: its weights, which become the Model, and when a run stops early.

The weights lie in the run's folder, VALIDATED, until the run is finished. A killed run that goes on
from its checkpoint meets the same epochs again, and writes the same file.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from nearkin.files import write_whole
from nearkin.runs.evaluate import headline
from nearkin.runs.run import Run
from nearkin.tensorfiles import packed, read_tensors

VALIDATED = "validated.safetensors"


def best_epoch(run: Run) -> int | None:
    """The position, among the epochs done, of the one that validation finds best; the first of
    equals. None where nothing has validated yet."""
    metric = headline(run.splits)
    seen = [i for i, entry in enumerate(run.epochs) if "validation" in entry and "test" in entry]
    return max(seen, key=lambda i: run.epochs[i]["validation"][metric]) if seen else None


def keep_if_best(run: Run, folder: Path) -> None:
    """Keep the weights of the epoch just done, where validation finds it the best so far."""
    if run.ranks.first and run.epochs and best_epoch(run) == len(run.epochs) - 1:
        weights = packed(run.deployed.state_dict())
        write_whole(folder / VALIDATED, lambda file: file.write(weights))


def chosen_weights(run: Run, folder: Path) -> dict[str, Tensor] | None:
    """The weights of the epoch that validation chose; None where that is the last one, whose
    weights the run still has.

    Raises:
        ValueError: somebody has removed their file.
    """
    best = best_epoch(run)
    if best is None or best == len(run.epochs) - 1:
        return None
    path = folder / VALIDATED
    if not path.exists():
        raise ValueError(f"{path} is gone: remove {folder}, and the run is done anew")
    return read_tensors(path)


def with_weights(module: nn.Module, weights: dict[str, Tensor] | None) -> nn.Module:
    """The module, with these weights where there are any."""
    if weights is not None:
        module.load_state_dict(weights)
    return module


def is_spent(run: Run) -> bool:
    """Whether so many validations in a row have found no better epoch as the recipe has patience
    for."""
    best, patience = best_epoch(run), run.recipe.patience
    if not patience or best is None:
        return False
    return sum("validation" in entry for entry in run.epochs[best + 1 :]) >= patience
