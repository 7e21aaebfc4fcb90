"""Claim: nk.fit trains one's own network by one's own loss on one's own data, as a recipe of the
same choices does, and gives a Model of what was trained."""

import math
import sys
import time
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import nearkin as nk
from nearkin.models import make
from nearkin.models.golden import drawing
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

RANDOM = np.random.default_rng(0)
Y = np.arange(96) % 8
X = (RANDOM.normal(size=(8, 6))[Y] + 0.3 * RANDOM.normal(size=(96, 6))).astype(np.float32)
SETTINGS: dict[str, Any] = {"batch": 16, "per_class": 2, "epochs": 2, "device": "cpu", "threads": 1}

NUMBER: Any = 3


class Own(nn.Module):
    """A user's network, which keeps to no convention of ours."""

    def __init__(self, channels=1, width=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride=2)
        self.out = nn.LazyLinear(5)

    def forward(self, x):
        return self.out(torch.relu(self.conv(x)).view(len(x), -1))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def recall(model, x=X, y=Y):
    return nk.evaluate(model.embed(x), y, metric=model.metric, clusters=False)["recall@1"]


def test_own_network_own_loss_own_arrays():
    net, loss = mlp(), nk.losses.Contrastive()
    before = [p.clone() for p in net.parameters()]
    settings = SETTINGS | {"epochs": 8, "lr": 1e-2}
    model = nk.fit(net, loss, X, np.array(["c", "b", "a", "d", "e", "f", "g", "h"])[Y], **settings)
    assert all(not torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))
    assert model.classes == tuple("abcdefgh")
    assert (model.metric, model.dim) == ("euclidean", 3)
    torch.testing.assert_close(model.embed(X), net(torch.from_numpy(X)).detach())
    assert recall(model) > recall(nk.Model(mlp(), None, "euclidean")) + 0.1


def test_names_give_what_a_recipe_of_these_choices_gives():
    splits = nk.load("mnist-5k")
    settings: dict[str, Any] = {
        "steps": 6,
        "epochs": 2,
        "batch": 32,
        "dim": 4,
        "lr": 2e-3,
        "seed": 3,
    }
    model = nk.fit("network", "ratio-triplet", splits, device="cpu", **settings)
    run = Run(Recipe(**settings), splits, "cpu")
    for _ in train(run):
        pass
    torch.testing.assert_close(model.embed(splits.query), run.embed(splits.query))


def test_an_object_gives_what_its_name_gives():
    splits = nk.load("mnist-5k")
    settings: dict[str, Any] = {"steps": 4, "epochs": 1, "batch": 32, "seed": 2}
    by_name = nk.fit("network", "contrastive", splits, device="cpu", dim=4, **settings)
    torch.manual_seed(2)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = make("network", {}, (1, 28, 28), 4)
    by_object = nk.fit(net, nk.losses.Contrastive(), splits, device="cpu", **settings)
    assert by_object.identity == by_name.identity


def test_the_networks_of_the_readme():
    splits = nk.load("mnist-5k")
    net = nk.Network(28, 28, 1, 2).add_conv(5, 5, 2, 2, 8).add_fc(16)
    ends = []
    model = nk.fit(
        net,
        nk.losses.RatioTriplet(),
        splits,
        steps=4,
        epochs=2,
        augment="affine",
        device="cpu",
        callbacks=nk.Callback(on_epoch=ends.append),
    )
    assert [end.epoch for end in ends] == [1, 2]
    assert 0 < ends[-1].metrics["knn_accuracy"] <= 1
    assert model.provenance["metrics"]["last"]["recall@1"] == ends[-1].metrics["recall@1"]
    picture = Image.fromarray(splits.query.tensor[0, 0].numpy())
    torch.testing.assert_close(model.embed(picture), model.embed(splits.query)[:1])


def test_a_model_of_own_pictures_takes_files(tmp_path):
    pixels = [drawing(130 + i, 140 - i, i) for i in range(16)]
    paths = [tmp_path / f"{i}.png" for i in range(16)]
    for path, array in zip(paths, pixels, strict=True):
        Image.fromarray(array).save(path)
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=5)
    settings = SETTINGS | {"size": 32, "batch": 8, "augment": "crop-flip", "metric": "cosine"}
    model = nk.fit(net, nk.losses.Contrastive(), paths, np.arange(16) % 4, **settings)
    model.save(tmp_path / "m")
    loaded = nk.Model.load(tmp_path / "m")
    assert loaded.metric == "cosine"
    torch.testing.assert_close(loaded.embed(paths), model.embed(pixels))
    theirs = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(theirs(x), loaded.backbone(x))


class Prepared(Dataset):
    """Tensors that the data set itself prepares."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return torch.from_numpy(drawing(12, 12, i)[..., 0] / 127.5 - 1)[None].float(), f"k{i % 4}"


def test_an_own_dataset_trains_an_own_class(tmp_path):
    torch.manual_seed(0)
    net, data = Own(), Prepared()
    net(torch.zeros(1, 1, 12, 12))  # its lazy layer
    model = nk.fit(net, nk.losses.Contrastive(), data, **dict(SETTINGS, batch=8))
    assert model.classes == ("k0", "k1", "k2", "k3")
    assert model.embed(data).shape == (16, 5)
    torch.testing.assert_close(model.embed(data[3][0]), model.embed(data)[3:4])
    model.save(tmp_path / "m")
    other = Own()
    other(torch.zeros(1, 1, 12, 12))
    loaded = nk.Model.load(tmp_path / "m", backbone=other)
    assert torch.equal(loaded.embed(data), model.embed(data))
    with pytest.raises(ValueError, match=r"this Model takes floats \(1, 12, 12\)"):
        model.embed(Image.fromarray(drawing(12, 12, 0)))
    with pytest.raises(ValueError, match=r"this Model takes floats \(1, 12, 12\).*uint8"):
        model.embed(drawing(12, 12, 0)[None, ..., 0])


class Plain(nn.Module):
    """A loss of two arguments, as most are written."""

    metric = "euclidean"

    def forward(self, embeddings, labels):
        centres = torch.stack([embeddings[labels == c].mean(0) for c in labels.unique()])
        spread = (embeddings - centres[labels.unique(return_inverse=True)[1]]).square().mean()
        return spread - centres.var(0).mean().clamp_max(4)


def test_a_loss_of_two_arguments():
    model = nk.fit(mlp(), Plain(), X, Y, **dict(SETTINGS, epochs=6, lr=1e-2))
    assert model.metric == "euclidean"
    assert recall(model) > 0.8


def test_losses_of_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    settings = SETTINGS | {"epochs": 4, "lr": 1e-2}
    model = nk.fit(mlp(), losses.MultiSimilarityLoss(), X, Y, **settings)
    assert model.metric == "cosine"
    proxies = losses.ProxyAnchorLoss(8, 3)
    before = proxies.proxies.detach().clone()
    nk.fit(mlp(), proxies, X, Y, **settings)
    assert not torch.equal(before, proxies.proxies)


def test_callbacks_hear_every_step_and_epoch_and_may_end_the_training():
    steps, ends = [], []

    class Watcher:
        def on_step(self, step):
            steps.append(step.step)

        def on_epoch(self, end):
            ends.append((end.epoch, end.step, end.loss, end.metrics["recall@1"]))
            assert end.model.embed(X[:2]).shape == (2, 3)
            return end.epoch == 2

    settings = dict(SETTINGS, epochs=5)
    nk.fit(
        mlp(),
        nk.losses.Contrastive(),
        X,
        Y,
        test=X,
        test_labels=Y,
        callbacks=[Watcher()],
        **settings,
    )
    assert [end[0] for end in ends] == [1, 2]
    assert steps == list(range(1, ends[-1][1] + 1))
    assert all(math.isfinite(end[2]) for end in ends)


class Kept:
    """A logger with the interface of Lightning Fabric's."""

    def __init__(self):
        self.metrics, self.settings, self.status = [], {}, ""

    def log_metrics(self, metrics, step):
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params):
        self.settings = dict(params)

    def finalize(self, status):
        self.status = status


def test_a_logger_hears_settings_losses_metrics_and_the_end():
    logger = Kept()
    nk.fit(
        mlp(),
        nk.losses.Contrastive(),
        X,
        Y,
        test=(X, Y),
        loggers=logger,
        **dict(SETTINGS, epochs=2),
    )
    assert logger.settings["epochs"] == 2
    assert logger.status == "success"
    names = {name for _, metrics in logger.metrics for name in metrics}
    assert {"train/loss", "train/epoch_loss", "train/learning_rate", "test/recall@1"} <= names
    broken = Kept()
    with pytest.raises(ValueError, match="take a lower lr"):
        nk.fit(mlp(), nk.losses.Contrastive(), X, Y, loggers=[broken], **dict(SETTINGS, lr=1e30))
    assert broken.status == "failed"


def test_loggers_by_name_write_below_the_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    nk.fit(
        mlp(),
        nk.losses.Contrastive(),
        X,
        Y,
        loggers=["tensorboard", "csv"],
        folder=tmp_path,
        **SETTINGS,
    )
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert "train/epoch_loss" in events.Tags()["scalars"]
    assert "train/epoch_loss" in (tmp_path / "csv" / "metrics.csv").read_text()
    with pytest.raises(ValueError, match="unknown logger 'tensorbord': did you mean 'tensorboard'"):
        nk.fit(mlp(), nk.losses.Contrastive(), X, Y, loggers="tensorbord", **SETTINGS)
    with pytest.raises(ValueError, match="a logger wants log_metrics"):
        nk.fit(mlp(), nk.losses.Contrastive(), X, Y, loggers=[NUMBER], **SETTINGS)


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("CONSOLE", "off")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    settings = SETTINGS | {"loggers": "wandb", "folder": tmp_path, "test": (X, Y)}
    nk.fit(mlp(), nk.losses.Contrastive(), X, Y, **settings)
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    names = (b"evaluate_every", b"train/epoch_loss", b"train/learning_rate", b"test/recall@1")
    for _ in range(100):  # a process of its own writes the file
        if all(name in written.read_bytes() for name in names):
            break
        time.sleep(0.1)
    assert [name for name in names if name not in written.read_bytes()] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of its parts
def test_mlflow_in_a_file(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    settings = dict(SETTINGS, loggers="mlflow", folder=tmp_path, test=(X, Y))
    nk.fit(mlp(), nk.losses.Contrastive(), X, Y, **settings)
    with pytest.raises(ValueError, match="take a lower lr"):
        nk.fit(mlp(), nk.losses.Contrastive(), X, Y, **dict(settings, lr=1e30))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nearkin")
    assert experiment
    broken, whole = client.search_runs([experiment.experiment_id])
    assert (whole.info.status, broken.info.status) == ("FINISHED", "FAILED")
    assert whole.data.params["epochs"] == "2"
    assert 0 <= whole.data.metrics["test/recall_at_1"] <= 1  # MLflow takes no @
    losses = client.get_metric_history(whole.info.run_id, "train/epoch_loss")
    assert [point.step for point in losses] == sorted(point.step for point in losses)
    assert len(losses) == 2


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_names_it(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.tracking", None)
    with pytest.raises(ImportError, match=rf"wanted {name}: pip install 'nearkin\[loggers\]'"):
        nk.fit(mlp(), nk.losses.Contrastive(), X, Y, loggers=name, folder=tmp_path, **SETTINGS)


def test_loggers_of_fabric_as_objects(tmp_path):
    from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

    loggers = [CSVLogger(tmp_path, "c"), TensorBoardLogger(tmp_path, "t")]
    nk.fit(mlp(), nk.losses.Contrastive(), X, Y, loggers=loggers, **SETTINGS)
    assert "train/epoch_loss" in (tmp_path / "c" / "version_0" / "metrics.csv").read_text()
    assert list(tmp_path.glob("t/version_0/events*"))


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path, stop):
    class Stopped(Exception):
        pass

    def halt(end):
        if end.epoch == stop:
            raise Stopped

    def once(net, **more):
        settings = SETTINGS | {"epochs": 5, "optimizer": "adam"}
        return nk.fit(
            net, nk.losses.ProxyGML(classes=8, dim=3, ratio=1.0), X, Y, **settings, **more
        )

    whole = once(mlp())
    kept = tmp_path / "state.pt"

    class Killer:
        def on_step(self, step):
            if step.epoch == stop + 1 or step.step >= 29:
                raise Stopped

    with pytest.raises(Stopped):
        once(mlp(), resume=kept, callbacks=[Killer()])
    assert kept.exists()
    torch.manual_seed(99)
    other = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    rest = []
    resumed = once(other, resume=kept, callbacks=[nk.Callback(on_step=rest.append)])
    assert rest[0].step > 1
    assert resumed.identity == whole.identity
    assert not kept.exists()


def test_a_state_of_other_data_or_settings_is_refused(tmp_path):
    kept = tmp_path / "state.pt"

    class Killer:
        def on_step(self, step):
            if step.step == 10:
                raise KeyboardInterrupt

    def once(x=X, **more):
        settings = dict(SETTINGS, epochs=4) | more
        return nk.fit(mlp(), nk.losses.Contrastive(), x, Y, resume=kept, **settings)

    with pytest.raises(KeyboardInterrupt):
        once(callbacks=[Killer()])
    with pytest.raises(ValueError, match="lr"):
        once(lr=0.5)
    with pytest.raises(ValueError, match="other data"):
        once(X + 1)


def test_two_learning_rates_and_a_trunk_that_rests():
    torch.manual_seed(0)
    net = make("mlp", {"hidden": 9}, (6,), 3)
    trunk = [p.clone() for p in net.trunk.parameters()]
    nk.fit(net, nk.losses.Contrastive(), X, Y, **SETTINGS, freeze=True)
    assert all(torch.equal(p, q) for p, q in zip(trunk, net.trunk.parameters(), strict=True))
    with pytest.raises(ValueError, match="trunk"):
        nk.fit(mlp(), nk.losses.Contrastive(), X, Y, **SETTINGS, freeze=True)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: nk.fit(mlp(), nk.losses.Contrastive(), X, Y, epoch=3), "did you mean 'epochs'"),
        (
            lambda: nk.fit(mlp(), nk.losses.Contrastive(), X, Y, epochs="3"),
            "epochs: wanted a value",
        ),
        (
            lambda: nk.fit(mlp(), nk.losses.Contrastive(), X, Y, trial=True),
            "unknown setting of fit",
        ),
        (lambda: nk.fit("mlpp", "contrastive", X, Y), "unknown backbone 'mlpp'"),
        (lambda: nk.fit("mlp", "contrastiv", X, Y), "did you mean 'contrastive'"),
        (lambda: nk.fit(NUMBER, "contrastive", X, Y), "backbone must be an nn.Module or a name"),
        (lambda: nk.fit(mlp(), NUMBER, X, Y), "loss must be"),
        (lambda: nk.fit(mlp(), "contrastive", X[:, :4], Y), "cannot take inputs"),
        (lambda: nk.fit(nn.Flatten(0), "contrastive", X, Y), r"embeddings \(B, D\), got \(6,\)"),
        (lambda: nk.fit(mlp(), nn.L1Loss(), X, Y), "L1Loss must have a metric"),
        (lambda: nk.fit(mlp(), "contrastive", X), "without labels"),
        (lambda: nk.fit(mlp(), "contrastive", [None] * 96, Y), "an item, got NoneType"),
        (lambda: nk.fit(mlp().half(), "contrastive", X, Y), "of float32, got float16"),
        (lambda: nk.fit(mlp().double(), "contrastive", X, Y), "of float32, got float64"),
        (lambda: nk.fit(mlp(), "contrastive", X, Y, threads=-1), "threads must be 0 to 1024"),
        (lambda: nk.fit(mlp(), "contrastive", X, Y, threads=10**9), "threads must be 0 to 1024"),
        (lambda: nk.fit(mlp(), "contrastive", X, Y, size="a"), "size: wanted"),
        (lambda: nk.fit(mlp(), "contrastive", X, Y, callbacks=print), "a callback wants on_step"),
        (lambda: nk.fit(mlp(), "contrastive", X, Y, callbacks=[print]), "got builtin_function"),
        (lambda: nk.fit(nn.Identity(), nk.losses.Contrastive(), X, Y), "nothing to train"),
    ],
)
def test_errors_say_what_was_wanted(act, said):
    with pytest.raises(ValueError, match=said) as caught:
        act()
    assert "\n" not in str(caught.value)
