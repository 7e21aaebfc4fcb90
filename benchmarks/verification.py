"""python -m benchmarks.verification [WORLDS]: do thresholds keep their promise on new classes?

Simulated classes whose spread differs; a threshold is calibrated on few of them and judged on many
new ones. Printed for each setting: in which share of the worlds the promise was kept, for ours
and for the plain quantile of the calibration scores, and the median of the true rate.
"""

from __future__ import annotations

import sys

import numpy as np

from nearkin.measure.verify import threshold

WORLDS = {"16-D": (16, 0.5, 0.3), "8-D, uneven": (8, 0.5, 0.5), "32-D": (32, 0.8, 0.3)}
SETTINGS = [(25, 6, 1e-2, "pairs"), (78, 4, 1e-3, "pairs"), (100, 6, 5e-2, "nearest")]


def draw(random, classes: int, each: int, dim: int, spread: float, uneven: float):
    """Unit embeddings (classes * each, dim) and labels of one world."""
    centres = random.standard_normal((classes, 1, dim)) * np.linspace(2, 0.3, dim)
    spreads = spread * np.exp(uneven * random.standard_normal((classes, 1, 1)))
    x = (centres + spreads * random.standard_normal((classes, each, dim))).reshape(-1, dim)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), np.repeat(np.arange(classes), each)


def impostors(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Similarities of all pairs of others, ascending."""
    i, j = np.triu_indices(len(x), 1)
    return np.sort((x @ x.T)[i, j][labels[i] != labels[j]])


def main(worlds: int = 1000) -> None:
    """Print a line for each world and setting."""
    for name, shape in WORLDS.items():
        strange = impostors(*draw(np.random.default_rng(1), 600, 8, *shape))
        new, _ = draw(np.random.default_rng(2), 12_000, 1, *shape)
        for classes, each, far, over in SETTINGS:
            true, plain = [], []
            for seed in range(worlds):
                x, labels = draw(np.random.default_rng(1000 + seed), classes, each, *shape)
                found = threshold(x, labels, over=over, far=far)
                if found.value is None:
                    continue
                if over == "pairs":
                    quantile = float(np.quantile(impostors(x, labels), 1 - far))
                    lines = (found.value, quantile)
                    rates = [1 - np.searchsorted(strange, line) / len(strange) for line in lines]
                    plain.append(rates[1] <= far)
                else:
                    rates = [float(((new @ x.T).max(1) >= found.value).mean())]
                true.append(rates[0])
            kept = f"{100 * np.mean(np.array(true) <= far):.1f} %" if true else "none promised"
            usual = f", plain quantile {100 * np.mean(plain):.1f} %" if plain else ""
            print(
                f"{name}: {classes} classes x {each}, {over}, FAR {far:g}: kept in {kept} of "
                f"{len(true)} worlds{usual}; true rate {np.median(true or [np.nan]):.2g}",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
