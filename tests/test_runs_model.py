"""Claim: a run leaves a Model that embeds as the run did, by the metric that it was trained for;
every command that reads a Model or its embeddings goes by what the files say."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import nearkin as nk
from nearkin import models
from nearkin.app.main import main
from nearkin.models.golden import drawing
from nearkin.runs.engine import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

CPU = Place(device="cpu")


@pytest.fixture(autouse=True)
def no_data_elsewhere(monkeypatch):
    monkeypatch.delenv("NEARKIN_DATA", raising=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photographs of many sizes in eight class folders, one of them turned by EXIF."""
    root = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in range(8):
        folder = root / f"class{kind}"
        folder.mkdir()
        for i in range(4):
            image = Image.fromarray(drawing(110 + 9 * i, 140 - 7 * kind, 3 * kind + i))
            options: dict[str, Any] = {"exif": exif} if i == 3 else {}
            image.save(folder / f"{i}.jpg", quality=95, **options)
    return root


def small(data: str, **changes) -> Recipe:
    base = Recipe(data=data, backbone="network", dim=6, loss="contrastive", epochs=1)
    options = {"filters": "4", "units": "8"}
    return replace(base, backbone_options=options, batch=8, per_class=2, size=16, **changes)


def resnet(data: str, **changes) -> Recipe:
    options = {"weights": "none"}
    return replace(small(data), backbone="timm:test_resnet", backbone_options=options, **changes)


def only(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def files_of(split, root: Path) -> list[Path]:
    return [root / name for name in split.names]


@pytest.mark.parametrize("make", [small, resnet])
def test_a_run_leaves_the_model_that_it_was_examined_as(photos, tmp_path, make):
    recipe = make(f"folder:{photos}")
    row = nk.run(recipe, tmp_path, place=CPU)
    model = nk.Model.load(tmp_path)
    split = nk.load(recipe.data, size=recipe.size).query
    with np.load(only(tmp_path) / "embeddings.npz") as file:
        wanted, made_by = torch.from_numpy(file["x"]), json.loads(str(file["made_by"]))
        assert str(file["metric"]) == model.metric == row["metric"] == "euclidean"
    torch.testing.assert_close(model.embed(files_of(split, photos)), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(split), wanted, rtol=1e-4, atol=1e-5)
    assert made_by["identity"] == model.identity
    assert model.classes == nk.load(recipe.data).train.classes
    assert Recipe(**model.recipe) == recipe
    assert model.provenance["metrics"] == row["metrics"]
    card = (only(tmp_path) / "README.md").read_text()
    assert f"| recall@1 | {100 * row['metrics']['last']['recall@1']:.2f} |" in card
    assert not list(tmp_path.rglob("*.pt"))
    if make is resnet:
        theirs = timm.create_model(f"local-dir:{only(tmp_path)}", pretrained=True).eval()
        x = torch.randn(2, 3, 16, 16)
        with torch.no_grad():
            assert torch.equal(theirs(x), model.backbone(x))


def test_a_run_on_digits_leaves_a_model_of_pictures(tmp_path):
    nk.run(replace(small("mnist-5k"), size=0, steps=2), tmp_path, place=CPU)
    model, split = nk.Model.load(tmp_path), nk.load("mnist-5k").query
    picture = Image.fromarray(split.tensor[5, 0].numpy())
    torch.testing.assert_close(model.embed(picture), model.embed(split)[5:6])


def test_a_model_of_inverted_pictures_inverts_the_files_it_is_given(tmp_path):
    for part in ("images_background", "images_evaluation"):
        for kind in range(2):
            folder = tmp_path / "data" / part / f"alphabet_{part}" / f"character{kind}"
            folder.mkdir(parents=True)
            for i in range(4):
                ink = Image.fromarray(drawing(20, 20, 3 * kind + i)).convert("1")
                ink.save(folder / f"{i}.png")
    recipe = small("omniglot", loss="triplet")
    place = replace(CPU, root=str(tmp_path / "data"))
    nk.run(recipe, tmp_path / "out", place=place)
    model = nk.Model.load(tmp_path / "out")
    split = nk.load("omniglot", tmp_path / "data", size=16).query
    paths = files_of(split, tmp_path / "data")
    torch.testing.assert_close(model.embed(paths), model.embed(split))


def embed(*words) -> None:
    main(["embed", *map(str, words), "--device", "cpu"])


def evaluated(capsys, *words) -> tuple[dict, str]:
    """The metrics that `evaluate` prints, and what it says beside."""
    capsys.readouterr()
    main(["evaluate", "--no-clusters", *map(str, words)])
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_embeddings_are_judged_by_the_metric_of_the_model_that_made_them(capsys, tmp_path):
    """A Euclidean run was judged by cosine: 60.8 instead of 57.5 % R@1."""
    recipe = replace(Recipe(loss="contrastive", dim=2, steps=30, epochs=1), batch=64)
    row = nk.run(recipe, tmp_path, place=CPU)
    output = tmp_path / "x.npz"
    embed("--data", "mnist-5k", "--checkpoint", tmp_path, "--output", output)
    found, said = evaluated(capsys, "--embeddings", output)
    identity = nk.Model.load(tmp_path).identity
    wanted = f"made by the Model {identity}: compared by euclidean, as the file says"
    assert said == f"nearkin: {output}, {wanted}\n"
    assert found["metric"] == "euclidean"
    assert found["recall@1"] == row["metrics"]["last"]["recall@1"]
    other, said = evaluated(capsys, "--embeddings", output, "--metric", "cosine")
    assert "compared by cosine, as --metric says" in said
    assert other["metric"] == "cosine"
    assert other["recall@1"] != found["recall@1"]
    with np.load(output) as file:
        made_by = json.loads(str(file["made_by"]))
    assert made_by["preprocessing"]["resize"]["height"] == 28
    assert made_by["recipe"]["loss"] == "contrastive"
    assert made_by["classes"] == list("0123456789")
    assert made_by["data"]["name"] == "mnist-5k"


def test_embeddings_of_two_models_are_not_compared(capsys, tmp_path, photos):
    for name in ("a", "b"):
        size = {"a": 16, "b": 24}[name]
        words = ("--backbone", "timm:test_resnet", "--backbone-options", "weights=none")
        embed(
            "--data",
            f"folder:{photos}",
            *words,
            "--size",
            size,
            "--output",
            tmp_path / f"{name}.npz",
        )
    files = ("--embeddings", tmp_path / "a.npz", "--gallery", tmp_path / "b.npz")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *map(str, files)])
    assert left.value.code == 2
    assert "their embeddings cannot be compared" in capsys.readouterr().err
    evaluated(capsys, "--embeddings", tmp_path / "a.npz", "--gallery", tmp_path / "a.npz")


@pytest.fixture(scope="module")
def features(photos, tmp_path_factory) -> Path:
    """The photographs' features by EfficientNet-lite0 at 48 pixels."""
    output = tmp_path_factory.mktemp("features") / "photos.npz"
    embed("--data", f"folder:{photos}", "--backbone", "lite0", "--size", 48, "--output", output)
    return output


def head(features: Path, **changes) -> Recipe:
    base = Recipe(data=f"features:{features}", backbone="linear", dim=5, loss="contrastive")
    return replace(base, batch=8, per_class=2, epochs=1, **changes)


@pytest.mark.parametrize("backbone", ["linear", "mlp", "identity"])
def test_a_head_on_features_becomes_one_model_of_photographs(photos, features, tmp_path, backbone):
    epochs = 0 if backbone == "identity" else 1
    recipe = replace(head(features), backbone=backbone, epochs=epochs)
    nk.run(recipe, tmp_path, place=CPU)
    model = nk.Model.load(tmp_path)
    split = nk.load(recipe.data).query
    with np.load(only(tmp_path) / "embeddings.npz") as file:
        wanted = torch.from_numpy(file["x"])
    torch.testing.assert_close(model.embed(split), wanted)
    torch.testing.assert_close(model.embed(files_of(split, photos)), wanted, rtol=1e-3, atol=1e-4)
    assert model.preprocessing
    assert model.preprocessing.width == 48
    folder = only(tmp_path)
    if backbone == "mlp":
        return
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(theirs(x), model.backbone(x))


def test_a_study_leaves_the_head_which_is_joined_when_it_is_loaded(photos, features, tmp_path):
    nk.run(head(features), tmp_path / "whole", place=CPU)
    nk.run(head(features), tmp_path / "study", place=CPU, study="mine")
    whole, part = (only(tmp_path / name) for name in ("whole", "study"))
    weights = [(folder / "model.safetensors").stat().st_size for folder in (whole, part)]
    assert weights[1] < weights[0] / 100
    assert nk.Model.load(part).identity == nk.Model.load(whole).identity
    paths = sorted(photos.rglob("*.jpg"))[:3]
    assert torch.equal(nk.Model.load(part).embed(paths), nk.Model.load(whole).embed(paths))


def test_a_head_on_a_trained_model_s_embeddings_takes_photographs(photos, tmp_path):
    nk.run(resnet(f"folder:{photos}"), tmp_path / "below", place=CPU)
    below = tmp_path / "x.npz"
    checkpoint = only(tmp_path / "below")
    embed("--data", f"folder:{photos}", "--checkpoint", checkpoint, "--output", below)
    nk.run(head(below), tmp_path / "above", place=CPU)
    model, split = nk.Model.load(tmp_path / "above"), nk.load(f"features:{below}").query
    wanted = model.embed(split)
    torch.testing.assert_close(model.embed(files_of(split, photos)), wanted, rtol=1e-3, atol=1e-4)


def without_origin(features: Path, path: Path) -> Path:
    """The same features in a file as others write them."""
    with np.load(features) as file:
        arrays = {name: file[name] for name in file.files if name != "made_by"}
    np.savez(path, **arrays)
    return path


def test_a_head_on_features_of_unknown_origin_takes_vectors(photos, features, tmp_path):
    plain = without_origin(features, tmp_path / "plain.npz")
    nk.run(head(plain), tmp_path / "out", place=CPU)
    model, split = nk.Model.load(tmp_path / "out"), nk.load(f"features:{plain}").query
    assert model.preprocessing is None
    assert model.embed(split).shape == (len(split), 5)
    with pytest.raises(ValueError, match="this Model takes vectors"):
        model.embed(photos / "class0" / "0.jpg")


def train(*words) -> None:
    main(["train", *map(str, words), "--device", "cpu"])


HEAD = ("--backbone", "linear", "--dim", 5, "--loss", "contrastive", "--epochs", 1)
HEAD += ("--batch", 8, "--per-class", 2)


@pytest.mark.parametrize("root", [True, False])
def test_a_person_says_what_made_the_features(photos, features, tmp_path, root):
    plain = without_origin(features, tmp_path / "plain.npz")
    words = ("--data", f"features:{plain}", *HEAD, "--made-by", "lite0", "--made-size", 48)
    train(*words, "--root", photos if root else tmp_path, "--out", tmp_path / "out")
    model, split = nk.Model.load(tmp_path / "out"), nk.load(f"features:{plain}").query
    found = model.embed(files_of(split, photos))
    torch.testing.assert_close(found, model.embed(split), rtol=1e-3, atol=1e-4)


def test_it_may_be_said_of_a_run_that_is_stored(photos, features, tmp_path):
    plain = without_origin(features, tmp_path / "plain.npz")
    words = ("--data", f"features:{plain}", *HEAD, "--out", tmp_path / "out")
    train(*words)
    assert nk.Model.load(tmp_path / "out").preprocessing is None
    train(*words, "--made-by", "lite0", "--made-size", 48)
    model, split = nk.Model.load(tmp_path / "out"), nk.load(f"features:{plain}").query
    found = model.embed(files_of(split, photos))
    torch.testing.assert_close(found, model.embed(split), rtol=1e-3, atol=1e-4)
    assert model.metric == "euclidean"


def test_it_may_be_said_to_embed(photos, features, tmp_path):
    plain = without_origin(features, tmp_path / "plain.npz")
    train("--data", f"features:{plain}", *HEAD, "--out", tmp_path / "out")
    words = ("--data", f"folder:{photos}", "--checkpoint", tmp_path / "out")
    embed(*words, "--made-by", "lite0", "--made-size", 48, "--output", tmp_path / "y.npz")
    wanted = nk.Model.load(tmp_path / "out").embed(nk.load(f"features:{plain}").query)
    found = nk.load(f"features:{tmp_path / 'y.npz'}").query.tensor
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--made-by", "lite0", "--made-size", 96), r"a cosine of 0\.\d+ to those that this"),
        (("--made-by", "timm:test_resnet"), "makes 96 features, .* holds 1280|no weights"),
        (("--made-size", 48), "--made-size goes with --made-by"),
        (("--made-by", "network"), "no pretrained backbone"),
        (("--made-by", "absent"), "no such folder or file"),
    ],
)
def test_what_did_not_make_the_features_is_refused(photos, features, tmp_path, capsys, words, said):
    plain = without_origin(features, tmp_path / "plain.npz")
    with pytest.raises(SystemExit) as left:
        train("--data", f"features:{plain}", *HEAD, *words, "--root", photos, "--out", tmp_path)
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(said, told)


def test_made_by_is_refused_of_pictures_and_of_another_model(photos, features, tmp_path):
    place = replace(CPU, made_by="lite0", made_size=48)
    with pytest.raises(ValueError, match="--made-by goes with features:FILE"):
        nk.run(small(f"folder:{photos}"), tmp_path, place=place)
    with pytest.raises(ValueError, match="was made by the Model"):
        nk.run(head(features), tmp_path, place=replace(place, made_size=32))


def test_a_model_whose_features_maker_is_gone_says_so(photos, tmp_path):
    below = tmp_path / "below"
    nk.run(resnet(f"folder:{photos}"), below, place=CPU)
    output = tmp_path / "x.npz"
    embed("--data", f"folder:{photos}", "--checkpoint", only(below), "--output", output)
    below.rename(tmp_path / "moved")
    nk.run(head(output), tmp_path / "above", place=CPU)
    model = nk.Model.load(tmp_path / "above")
    picture = photos / "class0" / "0.jpg"
    with pytest.raises(ValueError, match=r"what made its features is not found: .*below") as caught:
        model.embed(picture)
    assert "\n" not in str(caught.value)
    joined = nk.Model.load(tmp_path / "moved").join(model)
    assert joined.embed(picture).shape == (1, 5)


def test_heads_on_features_in_a_circle_end(features, tmp_path):
    nk.run(head(without_origin(features, tmp_path / "x.npz")), tmp_path / "out", place=CPU)
    folder = only(tmp_path / "out")
    model = nk.Model.load(folder)
    model.provenance["made_by"] = {"identity": model.identity, "folder": str(folder)}
    model.save(folder)
    assert nk.Model.load(folder).preprocessing is None


def backbone_of(recipe: Recipe):
    return Run(recipe, nk.load(recipe.data, size=recipe.size), "cpu").backbone.module


def test_a_run_starts_from_a_model_a_run_an_old_file_or_another_trainer_s(photos, tmp_path):
    recipe = resnet(f"folder:{photos}")
    nk.run(recipe, tmp_path, place=CPU)
    net = nk.Model.load(tmp_path).backbone
    torch.save(models.describe(net), tmp_path / "backbone.pt")
    state = net.trunk.model.state_dict()
    classifier = {"fc.weight": torch.zeros(3, 96), "fc.bias": torch.zeros(3)}
    wrapped = {f"module.{name}": tensor for name, tensor in (state | classifier).items()}
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "theirs.pth")
    only(tmp_path)
    for start in (only(tmp_path), tmp_path, tmp_path / "backbone.pt", tmp_path / "theirs.pth"):
        started = backbone_of(replace(recipe, start=str(start), seed=5))
        for name, tensor in net.trunk.state_dict().items():
            assert torch.equal(started.trunk.state_dict()[name], tensor), start
        assert not torch.equal(started.head[1].weight, net.head[1].weight)
    whole = backbone_of(replace(recipe, start=str(tmp_path), epochs=0))
    assert torch.equal(whole.head[1].weight, net.head[1].weight)
    with pytest.raises(ValueError, match="does not fit"):
        backbone_of(small(f"folder:{photos}", start=str(tmp_path)))


def test_a_head_starts_from_the_head_of_a_joined_model(features, tmp_path):
    recipe = replace(head(features), backbone="mlp")
    nk.run(recipe, tmp_path, place=CPU)
    joined = nk.Model.load(tmp_path).backbone
    started = backbone_of(replace(recipe, start=str(tmp_path), seed=3))
    torch.testing.assert_close(
        started.trunk.state_dict()["1.weight"], joined.head.trunk.state_dict()["1.weight"]
    )


def test_a_diverged_run_leaves_no_model(features, tmp_path):
    row = nk.run(head(features, lr=1e30, optimizer="sgd", steps=9), tmp_path, place=CPU)
    assert row["status"] == "diverged"
    with pytest.raises(ValueError, match=r"wanted a Model's folder, or --out of a run"):
        nk.Model.load(tmp_path)


def test_an_out_folder_of_several_runs_is_refused_with_their_list(capsys, features, tmp_path):
    hashes = [nk.run(head(features, seed=seed), tmp_path, place=CPU)["hash"] for seed in (0, 1)]
    with pytest.raises(SystemExit) as left:
        embed(
            "--data",
            f"features:{features}",
            "--checkpoint",
            tmp_path,
            "--output",
            tmp_path / "x.npz",
        )
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "it holds 2 finished runs" in told
    assert all(hash in told for hash in hashes)


def test_a_pretrained_backbone_s_name_is_a_model(photos, tmp_path):
    output = tmp_path / "x.npz"
    embed("--data", f"folder:{photos}", "--checkpoint", "lite0", "--size", 32, "--output", output)
    split = nk.load(f"features:{output}").query
    wanted = nk.Model.pretrained("lite0", size=32).embed(files_of(split, photos))
    torch.testing.assert_close(split.tensor, wanted, rtol=1e-3, atol=1e-4)


def test_a_result_has_its_row_and_its_model(features, tmp_path, monkeypatch):
    result = nk.run(head(features), tmp_path, place=CPU)
    assert result.row.hash == head(features).hash
    assert result.model.identity == nk.Model.load(tmp_path).identity
    assert result.model is result.model
    stored = nk.run(head(features), tmp_path, place=CPU)
    assert stored.model.identity == result.model.identity
    shutil.rmtree(tmp_path / "runs")  # as where rows were published
    with pytest.raises(ValueError, match=r"its Model is not: run\(\.\.\., anew=True\)"):
        _ = nk.run(head(features), tmp_path, place=CPU).model
    again = nk.run(head(features), tmp_path, place=CPU, anew=True)
    assert again.model.identity == result.model.identity
    lost = nk.run(head(features, lr=1e30, optimizer="sgd", steps=9), tmp_path, place=CPU)
    with pytest.raises(ValueError, match="diverged, and left no Model"):
        _ = lost.model


def test_a_run_of_own_objects_leaves_their_model(tmp_path):
    splits = nk.load("mnist-5k")
    net = nk.Network(28, 28, 1, 3).add_conv(5, 5, 4, 4, 4).add_fc(8)
    recipe = Recipe(dim=3, steps=3, epochs=1, batch=32)
    own = {"splits": splits, "backbone": net, "loss": nk.losses.Contrastive()}
    result = nk.run(recipe, tmp_path, place=CPU, **own)
    assert result.row.own_object == "backbone Network, loss Contrastive"
    with np.load(result.folder / "embeddings.npz") as file:
        wanted = torch.from_numpy(file["x"])
    torch.testing.assert_close(result.model.embed(splits.query), wanted)
    torch.testing.assert_close(nk.Model.load(tmp_path).embed(splits.query), wanted)
    assert result.model.metric == "euclidean"
    picture = Image.fromarray(splits.query.tensor[3, 0].numpy())
    torch.testing.assert_close(result.model.embed(picture), wanted[3:4])


def test_a_run_on_own_arrays_and_datasets(tmp_path):
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    y = np.array(["a", "b", "c", "d"])[np.arange(48) % 4]
    recipe = Recipe(backbone="linear", loss="contrastive", dim=3, steps=3, epochs=1, batch=16)
    result = nk.run(recipe, tmp_path, place=CPU, splits=(x, y))
    assert result.model.embed(x).shape == (48, 3)
    assert result.model.classes == ("a", "b", "c", "d")
    assert nk.run(recipe, tmp_path, place=CPU, splits=(x, y)).stored
    assert not nk.run(recipe, tmp_path, place=CPU, splits=(x + 1, y)).stored

    class Data:
        def __len__(self):
            return 48

        def __getitem__(self, i):
            return x[i].view(1, 2, 3), str(y[i])

    for _ in range(2):
        result = nk.run(recipe, tmp_path, place=CPU, splits=Data())
        assert not result.stored
        assert result.row.own_object == "data own (not to be told from others: a Dataset)"
