"""Claim: the last stages of a network learn from stored feature maps what they would learn from
pictures, with the stages before them at rest."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nearkin as nk
from nearkin.data import Split, Splits, cache_folder, maps
from nearkin.data.cache_folder import caches
from nearkin.data.maps import CHUNK, Table, bytes_of, packed, stored, unpacked
from nearkin.models.cut import After, Before, cut_before, stages_of
from nearkin.runs import engine
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.engine import Place, run
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

CPU = Place(device="cpu", threads=1)
NET = "timm:test_efficientnet"
OPTIONS = {"weights": "none", "batch_norm": "frozen"}
RECIPE = Recipe(
    backbone=NET,
    backbone_options=OPTIONS,
    dim=8,
    loss="contrastive",
    batch=8,
    per_class=2,
    epochs=3,
    size=32,
    tail=2,
    tail_bits=32,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A folder of caches for each test."""
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def drawings(seed: int = 0, name: str = "drawings") -> Splits:
    """Four classes of six drawings train, four others test: stripes of a direction and a width."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")

    def split(first: int, names: str) -> Split:
        kinds = torch.arange(24) // 6
        turns = (first + kinds) * 0.4 + 0.05 * torch.randn(24, generator=random)
        waves = turns.cos()[:, None, None] * x + turns.sin()[:, None, None] * y
        stripes = 127 + 127 * (waves * (0.5 + 0.1 * kinds[:, None, None])).sin()
        noise = 20 * torch.randn(24, 3, 40, 40, generator=random)
        pictures = (stripes[:, None] + noise).clamp(0, 255).to(torch.uint8)
        return Split(pictures, kinds, tuple(names))

    test = split(4, "efgh")
    return Splits(name, split(0, "abcd"), test, test)


def carried_out(recipe: Recipe, frozen: int = 0) -> Run:
    """A run to its end; without a tail, with the stages before the last `frozen` at rest."""
    current = Run(recipe, drawings(), "cpu")
    if frozen:
        trunk: Any = current.backbone.module.trunk
        cut, _ = cut_before(trunk, frozen, (3, 32, 32), NET)
        Before(trunk, cut).requires_grad_(False)
        current.learning = [p for p in current.trunk.parameters() if p.requires_grad]
    for _ in train(current):
        pass
    return current


def changed(current: Run) -> dict[str, Tensor]:
    """By how much each weight has changed since the run's start."""
    start = Run(current.recipe, drawings(), "cpu").backbone.module.state_dict()
    return {k: v - start[k] for k, v in current.backbone.module.state_dict().items()}


@pytest.mark.parametrize(("last", "changes"), [(1, {"head_first": 1}), (2, {})])
def test_a_tail_learns_what_fine_tuning_with_the_rest_frozen_learns(last, changes):
    tail = carried_out(replace(RECIPE, tail=last, **changes))
    plain = replace(RECIPE, tail=0, tail_bits=16, **changes)
    whole = carried_out(plain, frozen=last)
    ours, theirs = (current.backbone.module.state_dict() for current in (tail, whole))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert max(v.abs().max().item() for v in changed(tail).values()) > 1e-3
    for split in (tail.splits.train, tail.splits.query):
        wanted = whole.embed(replace(split))
        torch.testing.assert_close(tail.embed(split), wanted, rtol=0, atol=1e-5)


def test_only_the_last_stages_and_the_head_learn():
    moved = {name for name, by in changed(carried_out(RECIPE)).items() if by.any()}
    heads = {name.removeprefix("trunk.model.") for name in moved}
    first = {name.rpartition(".")[0] if name[:6] != "blocks" else name[:8] for name in heads}
    assert first <= {"blocks.3", "blocks.4", "conv_head", "bn2", "head"} | {"head.1", "head.2"}
    assert {"blocks.3", "blocks.4", "conv_head"} <= first
    assert not any("running" in name for name in moved)  # batch norm is frozen


@pytest.mark.parametrize(("bits", "apart"), [(16, 2e-3), (8, 0.05)])
def test_fewer_bits_come_near(bits, apart):
    gentle = replace(RECIPE, optimizer="sgd", lr=0.01)
    exact, rounded = carried_out(gentle), carried_out(replace(gentle, tail_bits=bits))
    x, y = (current.embed(current.splits.query) for current in (exact, rounded))
    assert 0 < (x - y).norm() / x.norm() < apart


def test_packed_maps_are_what_their_formula_says():
    x = torch.randn(3, 4, 2, 5) * torch.tensor([1.0, 10, 0, 1e-3]).view(4, 1, 1) + 1
    for bits in (32, 16, 8):
        rows = packed(x, bits)
        assert rows.shape == (3, bytes_of((4, 2, 5), bits))
        back = unpacked(rows, (4, 2, 5), bits).numpy()
        for place in np.ndindex(3, 4):
            values = x[place].numpy()
            if bits == 8:
                low = np.float16(values.min()).astype(np.float32)
                step = np.float16((values.max() - low) / 255).astype(np.float32)
                steps = (values - low) / step if step else np.zeros_like(values)
                values = low + step * np.clip(np.round(steps), 0, 255)
            elif bits == 16:
                values = values.astype(np.float16)
            assert np.abs(back[place] - values).max() == 0
    span = x.amax((2, 3), True) - x.amin((2, 3), True)
    error = (unpacked(packed(x, 8), (4, 2, 5), 8) - x).abs()
    assert (error <= span / 500 + x.abs().amax() * 2**-11).all()


def test_numbers_that_half_precision_does_not_hold_are_refused():
    for wrong in (1e5, float("nan")):
        with pytest.raises(ValueError, match=r"maps in 16 bits go up to 65504, got .*: take 32"):
            packed(torch.full((1, 1, 1, 1), wrong), 16)
    assert packed(torch.full((1, 1, 1, 1), 1e5), 32).shape == (1, 4)


def test_a_step_takes_one_of_the_stored_crops_of_each_picture(tmp_path):
    net: Any = nk.models.make(NET, {"weights": "none"}, (3, 32, 32), 8)
    torch.save(net.trunk.model.state_dict(), tmp_path / "net.pth")
    options = {**OPTIONS, "weights": str(tmp_path / "net.pth")}
    recipe = replace(RECIPE, backbone_options=options, augment="crop-flip", tail_crops=3)
    current = Run(recipe, drawings(), "cpu")
    tail: Any = current.tail
    indices, generator = torch.arange(24), torch.Generator().manual_seed(0)
    seen = torch.stack([tail.batch(indices, generator) for _ in range(12)])
    crops = tail.augmented[0][torch.arange(72)].view(3, 24, *tail.augmented[0].shape)
    same = (seen[:, None] == crops).flatten(3).all(3)  # (draw, crop, picture)
    assert (same.sum(1) == 1).all()
    assert same.any(0).all()  # each of them now and then
    inputs = drawings().train.inputs
    first = current.prepare(inputs, torch.arange(64) % 24, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(crops.flatten(0, 1)[:64], tail.before(first))
    found = caches()
    Run(replace(recipe, seed=5), drawings(), "cpu")  # which draws the same crops
    assert {one.folder for one in caches()} == {one.folder for one in found}


def test_folds_and_subsets_read_the_maps_of_their_own_pictures():
    """Maps are stored of all pictures, whatever a recipe chooses among them."""
    recipe = replace(RECIPE, validate=True, validate_every=2, keep_images=0.5, seed=1)
    current = Run(recipe, drawings(), "cpu")
    tail, validation = current.tail, current.validation
    assert tail
    assert validation
    before = current.embed(current.splits.train)
    found = [current.embed(split) for split in (validation.query, current.splits.query)]
    tail.places.clear()  # through the whole network now
    torch.testing.assert_close(current.embed(current.splits.train), before, rtol=0, atol=1e-5)
    for split, x in zip((validation.query, current.splits.query), found, strict=True):
        torch.testing.assert_close(current.embed(split), x, rtol=0, atol=1e-5)
    assert len(caches()) == 1


def test_a_closed_form_of_the_head_is_made_of_stored_maps():
    recipe = replace(RECIPE, epochs=0, head_start="whitened", dim=3)
    ours = Run(recipe, drawings(), "cpu")
    theirs = Run(replace(recipe, tail=0, tail_bits=16), drawings(), "cpu")
    x, y = (current.embed(current.splits.query) for current in (ours, theirs))
    assert (x - y).norm() < 1e-3 * y.norm()


def test_a_loss_that_looks_at_features_looks_at_those_of_the_tail():
    recipe = replace(RECIPE, loss="hdml", tail_bits=16)
    changes = {"tail": 0, "epochs": 1}
    ours = carried_out(replace(recipe, epochs=1, tail_bits=32))
    theirs = carried_out(replace(recipe, **changes), frozen=2)
    found, wanted = (each.backbone.module.state_dict() for each in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_the_model_is_the_whole_network_and_embeds_as_the_run_did(tmp_path):
    splits = drawings()
    recipe = replace(RECIPE, tail_bits=16, augment="crop-flip", tail_crops=2)
    found = run(recipe, tmp_path / "out", splits=splits, place=CPU)
    stored_ones = np.load(found.folder / "embeddings.npz")["x"]
    model = nk.Model.load(found.folder)
    ours = model.embed(splits.query).numpy()
    assert np.abs(ours - stored_ones).max() < 1e-3 * np.abs(ours).max()
    assert found.row.metrics.last
    tensors = set(model.backbone.state_dict())
    plain = replace(recipe, tail=0, tail_bits=16, tail_crops=4)
    assert tensors == set(Run(plain, splits, "cpu").backbone.module.state_dict())
    again = run(recipe, tmp_path / "out", splits=splits, place=CPU)
    assert again.stored


def test_a_run_goes_on_bit_for_bit(tmp_path):
    recipe = replace(RECIPE, tail_bits=8, augment="crop-flip", tail_crops=2)
    whole, first, second = (Run(recipe, drawings(), "cpu") for _ in range(3))
    for _ in train(whole):
        pass
    steps = train(first)
    while first.step < 4:
        next(steps)
    save(first, tmp_path / "checkpoint.pt")
    restore(second, tmp_path / "checkpoint.pt")
    for _ in train(second):
        pass
    expected, found = (each.backbone.module.state_dict() for each in (whole, second))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def table(count: int = 200, name: str = "x", key: int = 0, asked: list | None = None) -> Table:
    """Maps that tell their places, and note what is asked of them."""

    def make(places: Tensor) -> Tensor:
        if asked is not None:
            asked.extend(places.tolist())
        return (places[:, None, None, None] + torch.arange(6.0).view(1, 2, 3, 1)).expand(
            -1, 2, 3, 4
        )

    return Table(name, {"key": key}, count, (2, 3, 4), 32, make)


KILLED = """
import os, sys, torch
from nearkin.data.maps import Table, stored
def make(places):
    if places[0] == 128:
        os._exit(9)
    return (places[:, None, None, None] + torch.arange(6.0).view(1, 2, 3, 1)).expand(-1, 2, 3, 4)
stored([Table("x", {"key": 0}, 200, (2, 3, 4), 32, make)])
"""


def test_killed_storing_goes_on_where_whole_chunks_end(cache):
    """Half a chunk at the end of the file, as a kill may leave it, is made anew."""
    assert subprocess.run([sys.executable, "-c", KILLED]).returncode == 9
    (file,) = cache.glob("*/maps.u1")
    with open(file, "ab") as half:
        half.write(b"half a chunk")
    asked: list[int] = []
    (found,) = stored([table(asked=asked)])
    assert asked == list(range(2 * CHUNK, 200))
    (whole,) = stored([table(key=1)])
    assert torch.equal(found.rows, whole.rows)
    assert found[torch.tensor([199, 3])][:, 1, 2, 3].tolist() == [199 + 5, 3 + 5]
    asked.clear()
    stored([table(asked=asked)])
    assert not asked


def test_how_large_the_maps_will_be_is_told_before_they_are_made(capsys):
    stored([table()])
    assert capsys.readouterr().err.startswith(
        "x: 200 feature maps of 2 x 3 x 4 in 32 bits, 19.2 kB"
    )
    stored([table()])
    assert capsys.readouterr().err == ""


def test_maps_for_which_there_is_no_room_are_refused(cache, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE_GB", "0.00001")
    with pytest.raises(
        ValueError, match=r"x: 200 .* 19.2 kB, are more than caches may hold .*fewer"
    ):
        stored([table()])
    monkeypatch.delenv("NEARKIN_CACHE_GB")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(maps.shutil, "disk_usage", lambda path: usage(10, 10, 5000))
    with pytest.raises(ValueError, match=r"x: 200 .* to be written, and the disk has 5.0 kB free"):
        stored([table()])
    assert not list(cache.glob("*")) if cache.exists() else True


def test_the_cache_is_bounded_and_what_was_used_last_stays(monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE_GB", "0.000045")  # 45 kB: two tables of 19.2
    for key in range(3):
        stored([table(key=key)])
        for one in caches():  # the clock of a file system may be coarse
            if one.folder == table(key=key).folder:
                os.utime(one.folder / cache_folder.USED, (1_000 + key, 1_000 + key))
        assert sum(one.bytes for one in caches()) <= 45_000
    assert {one.folder for one in caches()} == {table(key=key).folder for key in (1, 2)}


def test_damaged_or_older_maps_are_made_anew(cache):
    stored([table()])
    header = table().folder / "header.json"
    header.write_text(json.dumps({"version": 0}))
    (found,) = stored([table()])
    assert found[torch.tensor([7])][0, 0, 0, 0] == 7
    assert header.read_bytes() == table().header


def test_other_data_weights_or_pixels_have_maps_of_their_own():
    def folders(splits: Splits, **changes: Any) -> set[Path]:
        Run(replace(RECIPE, **changes), splits, "cpu")
        return {one.folder for one in caches()}

    first = folders(drawings())
    assert folders(drawings(), lr=0.5, loss="triplet", seed=0, dim=4) == first
    assert len(folders(drawings(seed=1))) == 2
    assert len(folders(drawings(), size=40)) == 3
    assert len(folders(drawings(), tail=1)) == 4
    assert len(folders(drawings(), tail_bits=8)) == 5
    assert len(folders(drawings(), seed=1)) == 6  # random weights of another seed
    assert len(folders(drawings(), augment="crop-flip", tail_crops=2)) == 7
    assert len(folders(drawings(), augment="crop-flip", tail_crops=3)) == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tail": 5}, r"tail=5: wanted at most 4: timm:test_efficientnet has 5 stages"),
        ({"backbone": "network", "backbone_options": {}}, "tail=2 wants a pretrained network"),
        (
            {"backbone_options": {**OPTIONS, "stages": 2}},
            "whose last feature map alone is read, got timm:test_efficientnet",
        ),
        ({"backbone": "timm:test_vit"}, "timm:test_vit cannot be cut before blocks"),
    ],
)
def test_what_has_no_such_tail_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Run(replace(RECIPE, **changes), drawings(), "cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tail": 0}, "tail_bits goes with tail"),
        ({"tail": 0, "tail_bits": 16, "tail_crops": 2}, "tail_crops goes with tail"),
        ({"tail_bits": 12}, "tail_bits must be 32, 16 or 8, got 12"),
        ({"chunk": 4}, "chunk and tail do not go together"),
        ({"tail": -1}, "tail must be 0 or more"),
    ],
)
def test_settings_of_a_tail_that_mean_nothing_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(RECIPE, **changes)


def test_an_own_backbone_has_no_tail(tmp_path):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8))
    with pytest.raises(ValueError, match="tail wants a backbone by name, got Sequential"):
        Run(RECIPE, drawings(), "cpu", backbone=net)
    with pytest.raises(ValueError, match="tail=2 wants a pretrained network"):
        engine.run(replace(RECIPE, backbone="layers", backbone_options={}), tmp_path)


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_convnext"])
def test_networks_of_several_kinds_are_cut_without_a_change(name):
    options = {"weights": "none", "pool": "gem"}
    net: Any = nk.models.make(f"timm:{name}", options, (3, 32, 32), 8)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    wanted = net.eval().trunk(x)
    for last in range(1, len(stages_of(net.trunk.model))):
        cut, shape = cut_before(net.trunk, last, (3, 32, 32), name)
        seen = Before(net.trunk, cut)(x)
        assert seen.shape[1:] == shape
        torch.testing.assert_close(After(net.trunk, cut)(seen), wanted)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
