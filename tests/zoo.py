"""The doctor's zoo: 17 sick runs, each with its cure, and 17 healthy ones, some hard to tell.

    python tests/zoo.py                 # all of them, under seeds that no threshold was chosen by
    python tests/zoo.py --seeds 100 101 # others

Each is small: drawn features, scikit-learn's digits, the digits of mnist-5k, tiny networks, a
second of one thread. A sick run must be named by its illness; after the cure that the diagnosis
names, it must not be named so any more, and R@1 must be better, or what ailed gone. A healthy run
must have no diagnosis, neither at its end nor on the way.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

import nearkin as nk
from nearkin.data import Split, Splits
from nearkin.doctor import Diagnosis, examine
from nearkin.doctor.cure import healed
from nearkin.tensors import distances

SEEDS = (7, 8, 9)
"""Under which the zoo is reported; limits were chosen under seeds from 100 on."""


@dataclass
class Visit:
    """What was found of a run: at its end, on the way, and how good it was."""

    diagnoses: list[Diagnosis]
    recall: float
    told: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.diagnoses}


# data


def drawn(
    seed: int,
    classes: int = 20,
    per: int = 20,
    features: int = 48,
    noise: float = 0.5,
    latent: int = 12,
    nuisance: float = 1.5,
    groups: int = 0,
    tested: int = 0,
) -> Splits:
    """Classes around centres in a few directions, and noise in all others, in a turned space.

    groups: so many groups of classes, ten times as far apart.
    tested: classes of 20 items to test on; 0: as many as train, of as many items.
    """
    g = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(features, features, generator=g))[0]

    def part(prefix: str, classes: int = classes, per: int = per) -> Split:
        centre = torch.randn(classes, latent, generator=g)
        if groups:
            far = 10 * torch.randn(groups, latent, generator=g)
            centre = centre + far[torch.arange(classes) % groups]
        y = torch.arange(classes).repeat_interleave(per)
        own = centre[y] + noise * torch.randn(len(y), latent, generator=g)
        rest = nuisance * torch.randn(len(y), features - latent, generator=g)
        x = torch.cat([own, rest], 1) @ basis
        return Split(x, y, tuple(f"{prefix}{c:03}" for c in range(classes)))

    train, test = part(""), part("t", tested, 20) if tested else part("t")
    return Splits("drawn", train, test, test)


def two(seed: int) -> Splits:
    """Two classes, tested on new items of both."""
    whole = drawn(seed, classes=2, per=300).train
    half = torch.arange(0, 600, 2)
    query = whole.select(half + 1)
    return Splits("two", whole.select(half), query, query, shared_classes=True)


def with_junk(seed: int) -> Splits:
    """Twenty classes, of which the first is 400 items that lie where those of others do, and the
    others have 8 each; tested on new items of these classes."""
    g = torch.Generator().manual_seed(seed)
    found = drawn(seed, per=420, nuisance=1.0).train
    x, y = found.tensor.clone(), found.labels
    junk, others = (y == 0).nonzero()[:, 0], (y > 0).nonzero()[:, 0]
    like = others[torch.randint(len(others), (len(junk),), generator=g)]
    x[junk] = x[like] + 0.3 * torch.randn(len(junk), x.shape[1], generator=g)
    found = replace(found, inputs=x)
    of_class = [(y == c).nonzero()[:, 0] for c in range(20)]
    train = torch.cat([rows[: 400 if c == 0 else 8] for c, rows in enumerate(of_class)])
    test = torch.cat([rows[-20:] for rows in of_class])
    query = found.select(test)
    return Splits("junk", found.select(train), query, query, shared_classes=True)


def imbalanced(seed: int) -> Splits:
    """Twenty classes of 80, 60, ... and at last 6 items, tested on new classes."""
    found = drawn(seed, per=80, nuisance=1.0)
    y = found.train.labels
    sizes = [max(6, int(80 * 0.8**c)) for c in range(20)]
    rows = [(y == c).nonzero()[:size, 0] for c, size in enumerate(sizes)]
    query = found.query.select(torch.arange(0, len(found.query), 4))
    return replace(found, train=found.train.select(torch.cat(rows)), query=query, gallery=query)


def digits(seed: int) -> Splits:
    """scikit-learn's digits as 64 numbers each; half of them, another one for each seed, trains."""
    from sklearn.datasets import load_digits

    x, y = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    whole = Split(x.float()[order], y[order].long(), tuple("0123456789"))
    train, query = whole.select(torch.arange(900)), whole.select(torch.arange(900, len(y)))
    return Splits("digits", train, query, query, shared_classes=True)


def pictures(seed: int) -> Splits:
    """Digits of mnist-5k: 60 a class to train on, 20 to test."""
    found = nk.load("mnist-5k")
    g = torch.Generator().manual_seed(seed)

    def some(split: Split, count: int) -> Split:
        of_class = [(split.labels == c).nonzero()[:, 0] for c in range(10)]
        rows = [r[torch.randperm(len(r), generator=g)[:count]] for r in of_class]
        return split.select(torch.cat(rows))

    query = some(found.query, 20)
    return replace(found, train=some(found.train, 60), query=query, gallery=query)


# runs


def trained(
    data: Splits,
    loss: Any,
    backbone: Any = "linear",
    cure: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Visit:
    """A run of nk.fit under these settings, changed by a cure."""
    told: list[str] = []
    doctor = nk.Doctor(tell=told.append)
    common = {"batch": 64, "per_class": 4, "dim": 16, "epochs": 20, "lr": 0.01}
    chosen: dict[str, Any] = {**common, **settings, **(cure or {})}
    if isinstance(backbone, nn.Module):
        chosen.pop("dim")
    backbone = chosen.pop("backbone", backbone)
    try:
        model = nk.fit(backbone, loss, data, doctor=doctor, device="cpu", threads=1, **chosen)
    except ValueError as error:
        if "take a lower lr" not in str(error):
            raise
        return Visit(doctor.diagnoses(), 0.0, told)
    found = model.provenance["metrics"]["last"]
    return Visit(doctor.diagnoses(), found.get("in_train.recall@1", found["recall@1"]), told)


def looped(seed: int, root: Callable, steps: int = 100) -> Visit:
    """A training loop of plain PyTorch: a triplet loss of one's own, which takes this root."""
    data, g = drawn(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 16))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    told: list[str] = []
    doctor = nk.Doctor(tell=told.append)
    x, y = data.train.tensor, data.train.labels
    for _ in range(steps):
        chosen = torch.randperm(20, generator=g)[:12]
        rows = torch.cat([c * 20 + torch.randperm(20, generator=g)[:4] for c in chosen])
        embeddings, labels = net(x[rows]), y[rows]
        d = root(embeddings)
        same = labels[:, None] == labels
        far = torch.relu(d[:, :, None] - d[:, None, :] + 0.5)
        value = far[same[:, :, None] & ~same[:, None, :]].mean()
        optimizer.zero_grad()
        value.backward()
        doctor.step(embeddings, labels, value, net, None, optimizer)
        optimizer.step()
        if not value.isfinite():
            return Visit(doctor.diagnoses(), 0.0, told)
    with torch.no_grad():
        recall = doctor.test(net(data.query.tensor), data.query.labels)
    return Visit(doctor.diagnoses(), recall, told)


def rooted(x: torch.Tensor) -> torch.Tensor:
    """Distances whose root has an infinite slope at 0."""
    return (x[:, None] - x[None, :]).square().sum(2).sqrt()


def normed(seed: int) -> nn.Module:
    """A network with batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16)
        return nn.Sequential(*layers)


# sets of vectors


def arrays_of(data: Splits) -> dict[str, np.ndarray]:
    """A file of features."""
    parts = {"train": data.train, "query": data.query}
    return {
        "x": torch.cat([part.tensor for part in parts.values()]).numpy(),
        "y": np.concatenate([np.array(p.classes)[p.labels.numpy()] for p in parts.values()]),
        "split": np.repeat(list(parts), [len(part) for part in parts.values()]),
    }


def seen(arrays: Mapping[str, np.ndarray], cure: list[Diagnosis] | None = None) -> Visit:
    """What ails a file of features, after a cure where there is one; R@1 of its test set."""
    arrays = healed(arrays, cure) if cure else arrays
    test = arrays["split"] != "train"
    found = examine(arrays["x"], arrays["y"], test)
    x, y = arrays["x"][test], arrays["y"][test]
    recall = max(
        nk.evaluate(x, y, metric=metric, clusters=False)["recall@1"]
        for metric in ("cosine", "euclidean")
    )
    return Visit(found, recall)


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def leaking(seed: int) -> dict[str, np.ndarray]:
    """A twentieth of the test items stands in the training set, slightly changed."""
    made, r = arrays_of(drawn(seed)), random(seed)
    test = np.flatnonzero(made["split"] == "query")
    chosen = r.choice(test, len(test) // 20, replace=False)
    copies = made["x"][chosen] + 0.01 * r.normal(size=(len(chosen), made["x"].shape[1]))
    into = r.choice(np.flatnonzero(made["split"] == "train"), len(chosen), replace=False)
    made["x"][into] = copies
    return made


def doubled(seed: int) -> dict[str, np.ndarray]:
    """A twentieth of the items stands there twice, as photographs saved anew do."""
    made, r = arrays_of(drawn(seed)), random(seed)
    chosen = r.choice(len(made["x"]), len(made["x"]) // 20, replace=False)
    again = made["x"][chosen] + 0.01 * r.normal(size=(len(chosen), made["x"].shape[1]))
    return {
        "x": np.concatenate([made["x"], again.astype(np.float32)]),
        "y": np.concatenate([made["y"], made["y"][chosen]]),
        "split": np.concatenate([made["split"], made["split"][chosen]]),
    }


def mislabelled(seed: int) -> dict[str, np.ndarray]:
    """A tenth of the digits has the label of another class."""
    made, r = arrays_of(digits(seed)), random(seed)
    chosen = r.choice(len(made["y"]), len(made["y"]) // 10, replace=False)
    made["y"][chosen] = (
        (made["y"][chosen].astype(int) + r.integers(1, 10, len(chosen))) % 10
    ).astype(str)
    return made


def stretched(seed: int) -> Splits:
    """Features in units that span six orders of magnitude."""
    data = drawn(seed, nuisance=0.3)
    units = torch.from_numpy(10 ** random(seed).uniform(-3, 3, 48)).float()
    train, query = (replace(p, inputs=p.tensor * units) for p in (data.train, data.query))
    return replace(data, train=train, query=query, gallery=query)


def pretrained(seed: int) -> dict[str, np.ndarray]:
    """Features as a pretrained network makes them: positive, far from 0, variances that decay."""
    data = drawn(seed, noise=0.3, nuisance=0.2, features=64)
    made, decay = arrays_of(data), np.linspace(1, 0.3, 64)
    made["x"] = np.maximum(made["x"] * decay + 2, 0).astype(np.float32)
    return made


def tight(seed: int) -> dict[str, np.ndarray]:
    """Classes of five, each within a hundredth of its distance to others: no copies."""
    r = random(seed)
    y = np.repeat(np.arange(60), 5)
    x = r.normal(size=(60, 24))[y] + 0.02 * r.normal(size=(300, 24))
    return {"x": x.astype(np.float32), "y": y, "split": np.where(y % 2, "train", "query")}


Cure = Diagnosis | None


def flags(cure: Cure) -> Mapping[str, Any]:
    return cure.flags if cure else {}


def hard(seed: int) -> Splits:
    return drawn(seed, nuisance=3.0, noise=1.5)


SICK: dict[str, Callable[[int, Cure], Visit]] = {
    "NaN": lambda seed, cure: looped(seed, distances if cure else rooted),
    "collapse to a point": lambda seed, cure: trained(
        drawn(seed),
        "pml:ContrastiveLoss",
        "mlp",
        flags(cure),
        seed=seed,
        loss_options={"neg_margin": 0.0},
    ),
    "collapse to a line": lambda seed, cure: trained(
        drawn(seed), "triplet", "mlp", flags(cure), seed=seed, backbone_options={"hidden": 1}
    ),
    "collapse to a few directions": lambda seed, cure: trained(
        drawn(seed), "triplet", "mlp", flags(cure), seed=seed, backbone_options={"hidden": 3}
    ),
    "loss stuck at its margin": lambda seed, cure: trained(
        hard(seed),
        "pml:TripletMarginLoss",
        "mlp",
        flags(cure),
        seed=seed,
        lr=0.03,
        loss_options={"margin": 0.2},
        miner="pml:BatchHardMiner",
    ),
    "no active pairs": lambda seed, cure: trained(
        drawn(seed, classes=100, per=6),
        "triplet",
        "linear",
        flags(cure),
        seed=seed,
        sampler="random",
        batch=6,
        per_class=2,
        epochs=2,
    ),
    "idle proxies": lambda seed, cure: trained(
        drawn(seed, classes=40, tested=20),
        "cross-entropy",
        "linear",
        flags(cure),
        seed=seed,
        dim=8,
        loss_lr=1e-12,
    ),
    "one class swallows others": lambda seed, cure: trained(
        with_junk(seed), "triplet", "linear", flags(cure), seed=seed, sampler="random", epochs=10
    ),
    "learning rate too high": lambda seed, cure: trained(
        drawn(seed), "cross-entropy", "mlp", flags(cure), seed=seed, lr=10.0
    ),
    "learning rate too low": lambda seed, cure: trained(
        drawn(seed), "triplet", "linear", flags(cure), seed=seed, lr=1e-6
    ),
    "training classes memorised": lambda seed, cure: trained(
        drawn(seed, classes=10, per=10, tested=40, nuisance=0.5),
        "contrastive",
        "mlp",
        flags(cure),
        seed=seed,
        batch=40,
        dim=48,
    ),
    "batch norm fooled by the batch": lambda seed, cure: trained(
        drawn(seed),
        nk.losses.Triplet(),
        normed(seed),
        flags(cure),
        seed=seed,
        batch=8,
        per_class=4,
        epochs=6,
    ),
    "leak between splits": lambda seed, cure: seen(leaking(seed), [cure] if cure else None),
    "duplicates": lambda seed, cure: seen(doubled(seed), [cure] if cure else None),
    "labels that look wrong": lambda seed, cure: seen(mislabelled(seed), [cure] if cure else None),
    "features badly scaled": lambda seed, cure: trained(
        stretched(seed), "triplet", "linear", flags(cure), seed=seed, epochs=10
    ),
    "dimension wasted": lambda seed, cure: trained(
        drawn(seed), "triplet", "linear", {"dim": 256} | dict(flags(cure)), seed=seed
    ),
}
"""Illness -> the run that has it, under a seed, and after a cure."""

HEALTHY: dict[str, Callable[[int], Visit]] = {
    "triplets on a linear head": lambda seed: trained(drawn(seed), "triplet", seed=seed),
    "contrastive on two layers": lambda seed: trained(
        drawn(seed), "contrastive", "mlp", seed=seed, epochs=8
    ),
    "a normalised classifier, 64-D": lambda seed: trained(
        drawn(seed), "normalised-cross-entropy", seed=seed, dim=64
    ),
    "two classes, which need one line": lambda seed: trained(
        two(seed), "cross-entropy", seed=seed, per_class=32
    ),
    "two far groups of classes": lambda seed: trained(
        drawn(seed, groups=2, nuisance=0.8), "triplet", seed=seed
    ),
    "batch norm, batches of 64": lambda seed: trained(
        drawn(seed), nk.losses.Triplet(), normed(seed), seed=seed
    ),
    "pictures and a small network": lambda seed: trained(
        pictures(seed), "ratio-triplet", "network", seed=seed, dim=64, epochs=4, lr=1e-3, batch=40
    ),
    "digits, 10 classes in 32-D": lambda seed: trained(
        digits(seed), "supcon", "mlp", seed=seed, dim=32, epochs=6, batch=40, lr=0.003
    ),
    "solved, so that the loss is 0": lambda seed: trained(
        drawn(seed, noise=0.1, nuisance=0.1), "triplet", seed=seed
    ),
    "hard data, slowly learnt": lambda seed: trained(
        drawn(seed, noise=0.9, nuisance=2.0), "normalised-cross-entropy", seed=seed, lr=1e-3
    ),
    "classes of 6 to 80 items, drawn at random": lambda seed: trained(
        imbalanced(seed), "cross-entropy", seed=seed, sampler="random"
    ),
    "training classes known, new ones half": lambda seed: trained(
        drawn(seed, classes=12, noise=0.7), "fisher-nca", seed=seed, batch=48, epochs=15
    ),
    "proxies on a graph": lambda seed: trained(drawn(seed), "proxy-gml", seed=seed),
    "tuned gently from a whitened start": lambda seed: trained(
        drawn(seed, nuisance=0.7),
        "contrastive",
        seed=seed,
        head_start="lda",
        lr=1e-4,
        epochs=8,
    ),
    "a memory of past batches": lambda seed: trained(
        drawn(seed), "contrastive", seed=seed, memory=256
    ),
    "features of a pretrained network": lambda seed: seen(pretrained(seed)),
    "tight classes of five": lambda seed: seen(tight(seed)),
}
"""Runs without an illness, some of which a careless rule would find ill."""


# the report


def sick(name: str, seed: int) -> tuple[bool, str]:
    """Whether an illness is named and healed, and a line that says so."""
    before = SICK[name](seed, None)
    found = next((each for each in before.diagnoses if each.name == name), None)
    if not found:
        return False, f"MISSED  {name}: found {sorted(before.names)}"
    after = SICK[name](seed, found)
    gone, better = name not in after.names, after.recall > before.recall
    others = sorted(before.names - {name})
    line = f"{name}: R@1 {before.recall:.2f} -> {after.recall:.2f} by {found.cure[:60]}"
    line += f" (also {', '.join(others)})" if others else ""
    of_data = bool(found.items)
    healed = gone and (better or of_data or found.severity == "mild")
    return healed, f"{'healed ' if healed else 'NOT HEALED'} {line} {sorted(after.names)}"


def healthy(name: str, seed: int) -> tuple[bool, str]:
    """Whether a healthy run is found so, and a line that says so."""
    visit = HEALTHY[name](seed)
    fine = not visit.diagnoses and not visit.told
    wrong = sorted({str(each) for each in visit.diagnoses} | set(visit.told))
    line = f"{name}: R@1 {visit.recall:.2f} {'; '.join(wrong)}"
    return fine, f"{'healthy' if fine else 'ALARM  '} {line}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The doctor's zoo.")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    failed = 0
    for seed in asked.seeds:
        begun, named, alarms = time.process_time(), 0, 0
        ill = [name for name in SICK if asked.only in name]
        well = [name for name in HEALTHY if asked.only in name]
        for name in ill:
            fine, line = sick(name, seed)
            named += fine
            print(line, flush=True)
        for name in well:
            fine, line = healthy(name, seed)
            alarms += not fine
            print(line, flush=True)
        spent = time.process_time() - begun
        print(
            f"seed {seed}: {named} of {len(ill)} named and healed, {alarms} of {len(well)} healthy "
            f"runs called ill; {spent:.0f} s of CPU\n"
        )
        failed += named < len(ill) or alarms > 0
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
