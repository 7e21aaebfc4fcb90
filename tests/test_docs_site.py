"""The documentation site: its code runs, its commands exist, and every loss has its card.

The site itself is built by `make docs`, which `.ci/run` does; the pages that it wrote are looked at
here where they are there.
"""

import math
import re
import runpy
import shlex
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import nearkin as nk
from nearkin.app.arguments import flags_of
from nearkin.app.main import COMMANDS
from nearkin.names import resolve
from nearkin.registry import LOSSES

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
PAGES = sorted(SITE.rglob("*.md"))
sys.path.append(str(SITE))


def blocks(text: str, *kinds: str) -> list[str]:
    """The code of a page, of these kinds."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)
    return [code for kind, code in found if kind in kinds]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with photos/CLASS/*.png, images.csv and new.jpg."""
    random, lines = np.random.default_rng(0), ["path,class"]
    for kind in range(6):
        for i in range(4):
            path = tmp_path / "photos" / f"class {kind}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            base = random.integers(0, 40, (24, 24, 3)) + np.array([40 * kind, 200 - 30 * kind, 9])
            Image.fromarray(base.clip(0, 255).astype(np.uint8)).save(path)
            lines.append(f"{path.relative_to(tmp_path)},class {kind}")
    Image.new("RGB", (30, 20), (90, 130, 20)).save(tmp_path / "new.jpg")
    (tmp_path / "images.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


WITH_CODE = [page for page in PAGES if blocks(page.read_text(), "python")]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(SITE)))
def test_the_code_of_a_page_runs(page, folder):
    names: dict = {"__name__": page.stem}
    for code in blocks(page.read_text(), "python"):
        exec(compile(code, str(page), "exec"), names)


def block_of(page: str) -> str:
    """The block of a how-to that wants a library which is no dependency of ours."""
    (code,) = blocks((SITE / "howto" / page).read_text(), "py")
    return code


@pytest.mark.filterwarnings("ignore")  # the peer's own
def test_the_module_for_lightning_trains_on_other_batches_each_epoch(monkeypatch):
    """Run with lightning 2.6.6; skipped where it is not installed."""
    lightning = pytest.importorskip("lightning")
    names: dict = {"__name__": "lightning_how_to"}
    exec(block_of("lightning.md"), names)
    labels = torch.arange(6).repeat_interleave(8)
    data = TensorDataset(torch.randn(48, 5), labels)
    batches = nk.data.Batches(labels, 12, "classes", per_class=3)
    drawn, draw = [], batches.set_epoch

    def noted(epoch: int) -> None:
        draw(epoch)
        drawn.append(batches.steps)

    monkeypatch.setattr(batches, "set_epoch", noted)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = names["Embedder"](torch.nn.Linear(5, 4), 6, 4)
    trainer.fit(module, DataLoader(data, batch_sampler=batches), DataLoader(data, 16))
    assert 0 <= trainer.callback_metrics["recall@1"] <= 1
    assert len(drawn) == 2
    assert not torch.equal(*drawn)


@pytest.mark.filterwarnings("ignore")  # the peer's own
def test_a_model_of_transformers_is_a_backbone(folder, monkeypatch):
    """Run with transformers 5.24.0 and random weights; skipped where it is not installed."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    net = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda name: net)
    paths = sorted((folder / "photos").rglob("*.png"))
    names: dict = {"paths": paths, "labels": [path.parent.name for path in paths]}
    code = block_of("hugging-face.md").replace("size=224", "size=28, epochs=1, batch=8")
    exec(code, names)
    assert names["model"].embed(paths[:3]).shape == (3, 128)


@pytest.mark.filterwarnings("ignore")  # the peer's own
def test_values_of_oml_are_ours_where_its_page_says_so():
    """Compared with OML 4.0.0; skipped where it is not installed, as it wants NumPy below 2."""
    pytest.importorskip("oml")
    arcface, triplet, miners = (
        import_module(f"oml.{name}")
        for name in ("losses.arcface", "losses.triplet", "miners.inbatch_hard_tri")
    )
    x = torch.nn.functional.normalize(torch.randn(24, 8, generator=torch.manual_seed(0)))
    y, ours = torch.arange(24) % 6, nk.losses.Triplet(margin=0.2, mean="all")
    torch.testing.assert_close(triplet.TripletLossWithMiner(0.2)(x, y), ours(x, y))
    hard = triplet.TripletLossWithMiner(0.2, miners.HardTripletsMiner())(x, y)
    mined = nk.losses.make_miner("pml:BatchHardMiner")(x, y)
    torch.testing.assert_close(hard, ours(x, y, mined))
    theirs, mine = arcface.ArcFaceLoss(8, 6, m=0.5), nk.losses.ArcFace(6, 8, math.degrees(0.5))
    with torch.no_grad():
        next(mine.parameters()).copy_(theirs.weight.T)
    torch.testing.assert_close(theirs(3 * x, y), mine(3 * x, y))


@pytest.mark.parametrize("page", ["pml_page", "metric_learn_page"])
def test_the_code_of_a_page_on_migration_runs(page, folder):
    text = getattr(import_module("peers"), page)()
    for code in blocks(text, "python"):
        exec(compile(code, page, "exec"), {})
    assert text.count("\n| `") >= 4


def test_names_of_peers_and_ours_are_there():
    peers = import_module("peers")
    pml = import_module("pytorch_metric_learning.losses")
    assert all(hasattr(pml, name) for name in peers.PML)
    assert set(peers.PML.values()) - {"Memory"} <= set(LOSSES)
    for name in peers.PML_REST:
        module, _, thing = f"pytorch_metric_learning.{name}".rpartition(".")
        assert hasattr(import_module(module), thing)
    assert all(hasattr(import_module("metric_learn"), name) for name in peers.METRIC_LEARN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_commands_and_flags_of_a_page_are_there(page):
    text = page.read_text()
    lines = [line for code in blocks(text, "bash") for line in code.splitlines()]
    for line in lines:
        if line.startswith("nearkin "):
            _, command, *words = shlex.split(line)
            found = flags_of(resolve(COMMANDS[command]))
            known = {f"--{flag.name.replace('_', '-')}" for flag in found} | {"-k", "--recipe"}
            assert {word for word in words if word.startswith("-")} <= known, line
    for command in re.findall(r"`nearkin (\w+)", text):
        assert command in COMMANDS, command


def test_every_example_of_the_gallery_has_a_title_and_imports_what_it_draws_with():
    found = sorted((SITE / "gallery").glob("plot_*.py"))
    assert len(found) >= 5
    for path in found:
        assert re.match(r'"""\n\S.*\n=+\n\n', path.read_text()), path


@pytest.mark.parametrize("name", ["plot_4_whitening", "plot_5_tuple_batches"])
def test_an_example_of_the_gallery_runs(name, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    runpy.run_path(str(SITE / "gallery" / f"{name}.py"))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_card(name):
    cards = import_module("cards")
    steps = cards.steps_of(name)
    assert steps.isfinite().all()
    assert steps.norm() > 0
    text = cards.card(name)
    for part in ("What it pulls and pushes", "defaults", "## In our rows", f"`{name}`"):
        assert part in text
    assert cards.first_line(name).count("\n") == 0


def test_a_card_tells_what_rows_say():
    """The mean on the card is that of the published page, which other code has made of the rows."""
    cards = import_module("cards")
    page = f"rivals-{cards.CUB}"
    mine = cards.standings()["normalised-cross-entropy"]
    (here,) = [s for s in mine if s.page == page and s.setting.startswith("64-D")]
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text()
    shown = re.findall(r"^\| normalised cross-entropy \| \**([\d.]+) ± ", text, re.M)[0]
    assert float(here.score.split()[0]) == pytest.approx(float(shown), abs=0.06)
    assert here.seeds == 5


class Fetched(HTMLParser):
    """What a browser fetches when it opens a page."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio") and found.get("src"):
            self.addresses.append(found["src"] or "")
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.addresses.append(found.get("href") or "")


BUILT = ROOT / "out" / "docs" / "html"


@pytest.mark.skipif(not (BUILT / "index.html").is_file(), reason="`make docs` has not been run")
def test_no_built_page_fetches_anything_from_elsewhere():
    pages = [p for p in BUILT.rglob("*.html") if "_static" not in p.parts]
    assert len(pages) > 80
    for page in pages:
        for address in Fetched(page.read_text()).addresses:
            assert not re.match(r"(https?:)?//", address), (page, address)
    for style in BUILT.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import ['\"]https?:", style.read_text()), style


def test_docstrings_become_text_that_both_markups_show():
    docstrings = import_module("docstrings")
    doc = """The loss of x_i: |d_ij|.

        loss = sum of *d*

    Source: a paper.

    Args:
        margin: m, above `0`;
            and more.

    >>> 1 + 1
    2
    """
    assert [b.kind for b in docstrings.blocks(doc)] == [
        "text",
        "formula",
        "text",
        "fields",
        "example",
    ]
    rst, md = docstrings.to_rst(doc), docstrings.to_markdown(doc)
    assert ":param margin: m, above ``0``\\ ; and more." in rst
    assert ".. code-block:: text\n\n   loss = sum of *d*" in rst
    assert r"x\_i: \|d\_ij\|" in rst
    assert "```text\nloss = sum of *d*\n```" in md
    assert "- **margin**: m, above `0`; and more." in md
