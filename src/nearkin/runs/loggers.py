"""Loggers by name, for Lightning Fabric's interface: log_metrics, log_hyperparams, finalize.

An object with these three methods serves as well, such as a logger of Lightning's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nearkin.extras import optional
from nearkin.names import look_up

FOLDER = "logs"  # of loggers by name, where no other is given


class Logger(Protocol):
    """What receives the numbers of a run while it goes on."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers by name at a step."""

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """The settings of the run, once, before it begins."""

    def finalize(self, status: str) -> None:
        """The run is over: "success" or "failed"."""


class WandbLogger:
    """A run of Weights & Biases.

    Args:
        folder: where wandb keeps its files: it calls its own folder wandb.
        options: of `wandb.init`, such as project, name, mode="offline".
    """

    def __init__(self, folder: Path, **options: Any):
        import wandb

        folder.parent.mkdir(parents=True, exist_ok=True)
        self.run: Any = wandb.init(**{"dir": str(folder.parent), **options})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        self.run.config.update(dict(params), allow_val_change=True)

    def finalize(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "success" else 1)


class MLFlowLogger:
    """A run of MLflow, by default in a database of SQLite in the folder.

    Args:
        tracking_uri: of MLflow's server or database.
        experiment: its name.
    """

    def __init__(self, folder: Path, tracking_uri: str = "", experiment: str = "nearkin"):
        from mlflow.tracking import MlflowClient

        if not tracking_uri:  # which mlflow-skinny comes without
            import alembic  # noqa: F401
            import sqlalchemy  # noqa: F401
        folder.mkdir(parents=True, exist_ok=True)
        uri = tracking_uri or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        self.client: Any = MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(experiment)
        place = (folder / "mlartifacts").absolute().as_uri()
        number = (
            found.experiment_id
            if found
            else self.client.create_experiment(experiment, None if tracking_uri else place)
        )
        self.run_id: str = self.client.create_run(number).info.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run_id, name.replace("@", "_at_"), value, step=step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        for name, value in params.items():
            self.client.log_param(self.run_id, name, str(value)[:500])

    def finalize(self, status: str) -> None:
        done = "FINISHED" if status == "success" else "FAILED"
        self.client.set_terminated(self.run_id, status=done)


def tensorboard(folder: Path, **options: Any) -> Any:
    """Fabric's TensorBoard logger, which writes into the folder itself.

    Args:
        options: of TensorBoard's SummaryWriter, such as purge_step.
    """
    from lightning_fabric.loggers import TensorBoardLogger

    return TensorBoardLogger(folder.parent, name=folder.name, version="", **options)


def csv(folder: Path, **options: Any) -> Any:
    """Fabric's CSV logger: metrics.csv in the folder."""
    from lightning_fabric.loggers import CSVLogger

    return CSVLogger(folder.parent, name=folder.name, version="", **options)


LOGGERS = {
    "csv": csv,
    "mlflow": MLFlowLogger,
    "tensorboard": tensorboard,
    "wandb": WandbLogger,
}


def loggers_of(wanted: str | Logger | Iterable[str | Logger], folder: Path) -> Sequence[Logger]:
    """Loggers by name or as objects; those by name write below the folder."""
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        wanted = (wanted,)
    return [logger_of(each, folder) for each in wanted]


def logger_of(wanted: str | Logger, folder: Path) -> Logger:
    if isinstance(wanted, str):
        build: Any = look_up(wanted, LOGGERS, "logger")
        with optional():
            return build(folder / wanted)
    lacking = [n for n in ("log_metrics", "log_hyperparams", "finalize") if not hasattr(wanted, n)]
    if lacking:
        raise ValueError(f"a logger wants {', '.join(lacking)}, as Lightning Fabric's have")
    return wanted
