"""What is known to fail is refused before a picture is read; copies are bounded and told."""

import sys

import numpy as np
import pytest
from PIL import Image

from nearkin.app.main import main
from nearkin.runs import ingredients
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.studies import choice

CPU = Place(device="cpu", threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four classes of six pictures; two of the classes train."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(24):
        path = root / f"class{i % 4}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--loss nosuch", "unknown loss 'nosuch'"),
        ("--loss-options zzz=1", "unknown option of ratio-triplet 'zzz'"),
        ("--loss contrastive --loss-options margin=-1", "margin must be a number above 0"),
        ("--sampler nosuch", "unknown sampler 'nosuch'"),
        ("--sampler triplets --batch 128", "wanted a multiple of 3, got 128"),
        ("--sampler neighbours --batch 20", "a multiple of 4 classes x 4 images, got 20"),
        ("--per-class 3", "batch must be a multiple of per_class, got 128 and 3"),
        ("--backbone nosuch", "unknown backbone 'nosuch'"),
        ("--backbone lite0 --loss nosuch", "unknown loss 'nosuch'"),
        ("--backbone lite0 --per-class 3", "batch must be a multiple of per_class, got 112 and 3"),
        ("--backbone timm:resnet181", "unknown model timm:resnet181: did you mean timm:resnet18"),
        ("--backbone lite0 --backbone-options pool=zzz", "unknown pool 'zzz'"),
        ("--backbone lite0 --backbone-options weights=no.pt", "weights=no.pt: no such file"),
        ("--start no.pt", "start no.pt: no such file"),
        ("--head-start nosuch", "unknown closed form 'nosuch'"),
        ("--miner pml:Nope", "unknown miner 'pml:Nope'"),
        ("--miner all --loss cross-entropy", "takes no miner"),
        ("--sampler triplets --batch 126 --loss n-pair", "no sampler of triplets or pairs"),
        ("--sampler pairs --batch 128 --loss proxy-gml", "no sampler of triplets or pairs"),
        ("--sampler streams --batch 128 --loss clustering", "no sampler of triplets or pairs"),
        ("--refine gallery", "wants a loss with graph layers"),
        ("--loss-start means --loss contrastive", "wants a loss with proxies or a classifier"),
        ("--memory 8 --loss cross-entropy", "no use for a memory"),
        ("--made-by lite0", "--made-by goes with features:FILE"),
        ("--made-size 8", "--made-size goes with --made-by"),
    ],
)
def test_what_needs_no_picture_is_refused_before_any_is_read(
    photos, tmp_path, monkeypatch, capsys, words, said
):
    def read(*_, **__):
        raise AssertionError("pictures were read")

    monkeypatch.setattr(ingredients, "load", read)
    monkeypatch.setattr(choice, "load", read)
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys, "argv", ["nearkin", "train", "--data", str(photos), "--out", str(out), *words.split()]
    )
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_batches_of_copies_are_refused_in_one_line_that_says_what_fits(photos, tmp_path):
    recipe = Recipe(data=f"folder:{photos}", dim=2, epochs=1, batch=10_000)
    with pytest.raises(
        ValueError, match=r"of 12 training images 833 times: .* 12, and 192 at most"
    ):
        run(recipe, tmp_path, place=CPU)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("batch", "told"), [(48, ["each stands in it 4 times or so"]), (8, [])])
def test_a_batch_that_repeats_images_is_told_once(
    photos, tmp_path, capsys, monkeypatch, batch, told
):
    words = f"train --data folder:{photos} --dim 2 --epochs 2 --batch {batch} --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["nearkin", *words.split()])
    assert not main()
    lines = [line for line in capsys.readouterr().err.splitlines() if "training images" in line]
    assert len(lines) == len(told)
    assert all(word in lines[0] for word in told)
