"""A network, a loss, data and a validation loop of one's own, from training to a saved Model."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import nearkin as nk


class Net(nn.Module):
    """Any nn.Module that makes embeddings (B, D)."""

    def __init__(self, dim: int = 16):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU()
        )
        self.last = nn.Linear(32 * 4 * 4, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.convolutions(x).flatten(1))


class Centres(nn.Module):
    """Any loss(embeddings, labels): here, that each item is nearest to the mean of its class."""

    metric = "euclidean"  # what it makes near, and is judged by

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        classes, place = labels.unique(return_inverse=True)
        means = torch.stack([x[labels == c].mean(0) for c in classes])
        return (
            (torch.cdist(x, means) ** 2).neg().log_softmax(1).gather(1, place[:, None]).neg().mean()
        )


class Report:
    """A callback: `on_step(step)` and `on_epoch(end)`, either may be left out."""

    def on_epoch(self, end):
        share = end.metrics["recall@1"]
        print(f"epoch {end.epoch}: loss {end.loss:.3f}, recall@1 {100 * share:.1f} %")


def main(epochs: int = 4, folder: str = "out/own") -> dict[str, float]:
    """The metrics of the last epoch, once more, by a loop of one's own."""
    digits = nk.load("mnist-5k")
    pictures, test = (
        part.tensor[:, 0].numpy() for part in (digits.train, digits.query)
    )  # (N, H, W)
    names = np.array([f"digit {number}" for number in range(10)])  # labels of any kind
    labels, test_labels = (names[part.labels.numpy()] for part in (digits.train, digits.query))

    model = nk.fit(
        Net(),
        Centres(),
        pictures,
        labels,
        test=(test, test_labels),
        epochs=epochs,
        augment="shift",
        callbacks=[Report()],
        loggers="csv",
        folder=folder,
        resume=Path(folder) / "state.pt",  # a call that was killed goes on
    )
    metrics = nk.Accumulator(metric=model.metric, clusters=False)
    for start in range(0, len(test), 100):
        metrics.update(model.embed(test[start : start + 100]), test_labels[start : start + 100])

    model.save(Path(folder) / "model")
    loaded = nk.Model.load(Path(folder) / "model", backbone=Net())  # of an own class: weights alone
    assert torch.equal(loaded.embed(test[:9]), model.embed(test[:9]))
    return metrics.compute()


if __name__ == "__main__":
    print({name: round(value, 4) for name, value in main().items()})
