"""Claim: what a library call does, it does within; the process is afterwards as it was found, also
when the call fails or is interrupted, and what it was found in does not change a run's numbers."""

import json
import locale
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn  # noqa: F401 - what its import sets in the environment is its own
import torch
from PIL import Image, ImageFile
from torch import nn

import nearkin as nk
from nearkin.models.golden import drawing
from nearkin.models.preprocess import Preprocessing

CPU = nk.Place(device="cpu", threads=1)
LOGGERS = ("", "lightning_fabric", "lightning", "torch", "timm", "PIL", "sklearn", "matplotlib")
RECIPE: dict[str, Any] = {"backbone": "linear", "dim": 3, "epochs": 2, "batch": 16, "per_class": 2}


def state() -> dict[str, Any]:
    """What a call could change of its process."""
    cuda = torch.backends.cuda
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "NumPy's random state": str(np.random.get_state()),  # noqa: NPY002
        "Python's random state": random.getstate(),
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "anomalies": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic, with warnings": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "cuda": (cuda.matmul.allow_tf32, cuda.matmul.allow_bf16_reduced_precision_reduction),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "denormals": float(torch.tensor([1e-310], dtype=torch.float64) * 1),
        "NumPy's errors": np.geterr(),
        "NumPy's printing": str(np.get_printoptions()),
        "log levels": [logging.getLogger(name).level for name in LOGGERS],
        "log handlers": [list(logging.getLogger(name).handlers) for name in LOGGERS],
        "logging disabled": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "how warnings are shown": (warnings.showwarning, warnings.formatwarning),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask(),
        "signals": [signal.getsignal(s) for s in signal.valid_signals()],
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "hooks": (sys.excepthook, threading.excepthook, sys.displayhook, sys.gettrace()),
        "streams": (sys.stdout, sys.stderr),
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "Pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "threads alive": {thread.name for thread in threading.enumerate()},
    }


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


@pytest.fixture
def odd(monkeypatch, tmp_path):
    """A process in a state of which no part is the usual one."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    benchmark, errors = torch.backends.cudnn.benchmark, np.geterr()
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**7)
    torch.manual_seed(11)
    np.random.seed(12)  # noqa: NPY002
    random.seed(13)
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = not benchmark
    np.seterr(under="raise", divide="ignore")
    for i, name in enumerate(LOGGERS):
        logging.getLogger(name).setLevel(logging.ERROR + i)
    signal.signal(signal.SIGTERM, lambda *_: None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="one of the caller's own")
        monkeypatch.setattr(warnings, "formatwarning", lambda *_: "own\n")
        monkeypatch.setattr(warnings, "showwarning", lambda *_: None)
        yield
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
    np.seterr(**errors)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    signal.signal(signal.SIGTERM, terminate)


class Rude(nn.Module):
    """A loss that changes what it can of the process, and may then end the training."""

    metric = "euclidean"

    def __init__(self, ends: type[BaseException] | None = None):
        super().__init__()
        self.ends, self.calls = ends, 0

    def forward(self, embeddings, labels, indices_tuple=None):
        self.calls += 1
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        warnings.simplefilter("ignore")
        warnings.showwarning = print
        warnings.formatwarning = lambda *_: ""
        logging.getLogger("lightning_fabric").setLevel(1)
        torch.set_num_threads(1)
        torch.set_float32_matmul_precision("high")
        if self.ends and self.calls == 3:
            torch.set_default_dtype(torch.float64)
            raise self.ends
        return embeddings.square().mean()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x))


def points():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 4, generator=generator, dtype=torch.float32), np.arange(64) % 8


def fixed_net():
    with torch.random.fork_rng():
        net = Net()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters(), 1):
            parameter.copy_(torch.linspace(-1, number, parameter.numel()).view_as(parameter))
    return net


def run(tmp_path, **more):
    return nk.run(nk.Recipe(**RECIPE), tmp_path / "out", splits=points(), place=CPU, **more)


def fit(tmp_path, loss=None, net=None, callbacks=()):
    settings: dict[str, Any] = {"epochs": 2, "batch": 16, "per_class": 2, "threads": 1}
    loss, net = loss or nk.losses.Contrastive(), net or fixed_net()
    return nk.fit(net, loss, *points(), device="cpu", callbacks=callbacks, **settings)


def interrupted(tmp_path):
    def press(step):
        raise KeyboardInterrupt  # as the signal does, which may be ignored where tests run

    fit(tmp_path, callbacks=[nk.Callback(on_step=press)])


def study(tmp_path):
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 8)
    np.savez(tmp_path / "points.npz", x=random.normal(size=(320, 4)), y=y)
    nk.study(
        "graph-gain",
        out=tmp_path / "out",
        place=CPU,
        data=f"features:{tmp_path / 'points.npz'}",
        seeds=1,
        epochs=1,
        tune=False,
    )


def embed(tmp_path):
    Image.fromarray(drawing(200, 300, 1)).save(tmp_path / "a.jpg")
    with torch.random.fork_rng():
        net = nk.Network(28, 28, 3, 2).add_conv(5, 5, 2, 2, 4).add_fc(8)
    model = nk.Model(net, Preprocessing(28, 28))
    model.embed([tmp_path / "a.jpg"] * 3, device="cpu")
    model.save(tmp_path / "model")
    nk.Model.load(tmp_path / "model").similarity([[1.0] * 8], [[2.0] * 8])


def evaluate(tmp_path):
    x, y = points()
    nk.evaluate(x, y)
    nk.neighbours(x, k=3)


def embed_command(tmp_path):
    from nearkin.runs.embedding import load_and_embed

    options = {"checkpoint": None, "backbone": "linear", "backbone_options": {}, "size": 0}
    list(load_and_embed("mnist-5k", tmp_path / "x.npz", **options, place=CPU))


CALLS = {
    "run": (run, None),
    "run of rude objects": (lambda t: run(t, loss=Rude(), backbone=fixed_net()), None),
    "run that fails": (lambda t: run(t, loss=Rude(ArithmeticError)), ArithmeticError),
    "run that is interrupted": (lambda t: run(t, loss=Rude(KeyboardInterrupt)), KeyboardInterrupt),
    "run that is refused": (lambda t: nk.run(nk.Recipe(data="mnist-4k"), t), ValueError),
    "fit": (fit, None),
    "fit of rude objects": (lambda t: fit(t, Rude()), None),
    "fit that fails": (lambda t: fit(t, Rude(ArithmeticError)), ArithmeticError),
    "fit that is interrupted": (interrupted, KeyboardInterrupt),
    "study": (study, None),
    "embed": (embed, None),
    "embed to a file": (embed_command, None),
    "evaluate": (evaluate, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_process_is_left_as_it_was_found(name, odd, tmp_path):
    call, ends = CALLS[name]
    before = state()
    if ends:
        with pytest.raises(ends):
            call(tmp_path)
    else:
        call(tmp_path)
    after = state()
    assert [part for part in before if before[part] != after[part]] == []


@pytest.mark.parametrize("gradients", [torch.no_grad, torch.inference_mode])
def test_what_the_process_was_found_in_changes_no_number(odd, tmp_path, gradients):
    wanted = fit(tmp_path)
    run_wanted = run(tmp_path / "a")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with gradients():
                found = run(tmp_path / "b")
            torch.set_default_dtype(torch.float32)
            net = fixed_net()
            torch.set_default_dtype(torch.float64)
            with torch.no_grad():
                model = fit(tmp_path, net=net)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.row.metrics == run_wanted.row.metrics
    assert found.model.identity == run_wanted.model.identity
    assert model.identity == wanted.identity


FRESH = """
import json, logging, os, signal, sys, threading, warnings
import numpy, torch

def state():
    root = logging.getLogger()
    return [
        dict(os.environ), os.getcwd(), root.level, len(root.handlers),
        [str(signal.getsignal(s)) for s in signal.valid_signals()], numpy.geterr(),
        torch.get_num_threads(), str(torch.get_default_dtype()), sys.getrecursionlimit(),
        sys.excepthook is sys.__excepthook__, torch.get_float32_matmul_precision(),
        torch.initial_seed(), str(torch.get_rng_state().tolist()), logging.root.manager.disable,
    ]

import nearkin as nk
recipe = nk.Recipe(backbone="linear", dim=3, steps=2, epochs=1, batch=16)
x, y = torch.randn(64, 4), numpy.arange(64) % 8
before, filters = state(), warnings.filters[:]
nk.run(recipe, sys.argv[1], splits=(x, y), place=nk.Place(device="cpu", threads=1)).model
nk.evaluate(x, y)
after = state()
assert [f for f in warnings.filters if f in filters] == filters  # libraries add some of their own
print(json.dumps([[str(a), str(b)] for a, b in zip(before, after) if str(a) != str(b)]))
"""


def test_a_first_run_imports_what_it_needs_and_changes_nothing_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_only_the_command_line_tells_the_c_library_how_to_keep_memory():
    source = Path(nk.__file__).parent
    calls = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if "keep_freed_memory()" in path.read_text().replace("def keep_freed_memory()", "")
    }
    # these do so in the processes that they start, which are nobody else's
    assert {name for name in calls if not name.startswith("app/")} == {
        "runs/fleet.py",
        "runs/workers.py",
    }
    assert "app/train.py" in calls
