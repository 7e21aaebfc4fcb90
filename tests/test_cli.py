"""Bad input ends in one clear line and exit code 2, and leaves nothing half written."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nearkin.__main__
from nearkin.app.main import COMMANDS, main
from nearkin.app.parse import key_values, read_recipe
from nearkin.runs import engine
from nearkin.runs.recipe import Recipe
from nearkin.runs.store import Store


@pytest.fixture
def features(tmp_path) -> str:
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(8), 6)
    x = random.normal(size=(8, 5))[y] + 0.3 * random.normal(size=(48, 5))
    np.savez(tmp_path / "points.npz", x=x, y=y)
    return f"features:{tmp_path / 'points.npz'}"


def refused(capsys, *words: str) -> str:
    """The one line that a refused command says."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.count("\n") == 1, said
    assert said.startswith("nearkin: ")
    return said


def trained_into(out: Path, features: str) -> list[str]:
    """The words of a short run."""
    options = ["--backbone", "linear", "--epochs", "1", "--batch", "8", "--per-class", "2"]
    return ["train", "--data", features, "--out", str(out), *options]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trane"], "unknown command 'trane': did you mean 'train'?"),
        (["train", "--los", "x"], "did you mean --loss?"),
        (["train", "--no-validat"], "did you mean --no-validate?"),
        (["train", "--zzz", "1"], "Unrecognized options: --zzz, 1: did you mean --size?"),
        (["train", "--batch", "many"], "--batch: invalid literal for int() with base 10: 'many'"),
        (["evaluate"], "Missing from nearkin evaluate: --embeddings"),
        (["train", "--metric", "cosin"], "unknown metric 'cosin': did you mean 'cosine'?"),
        (["train", "--lr", "nan"], "lr must be 0 or more, and finite, got nan"),
        (["train", "--clip", "-1"], "clip must be 0 or more, and finite, got -1"),
        (["train", "--loss-options", "margin=Infinity"], "wanted options of plain values"),
        (["train", "--seed", "-1"], "seed must be 0 or more, got -1"),
        (["train", "--seed", "9" * 20], "seed must be below 2 to the 63rd"),
        (["train", "--dim", "100000000"], "would take 313,600.0 MB of memory or more"),
        (["train", "--backbone-options", "units=10000000000000000000"], "out of memory or range"),
        (["train", "--backbone-options", "kernel=10000000000"], "MB of memory or more"),
        (
            ["train", "--loss", "n-pair", "--sampler", "triplets", "--batch", "126"],
            "takes no miner, and no sampler of triplets or pairs",
        ),
        (
            ["train", "--loss", "contrastve"],
            "unknown loss 'contrastve': did you mean 'contrastive'?",
        ),
        (["train", "--loss-options", "margn=2", "--loss", "contrastive"], "did you mean 'margin'?"),
        (["train", "--loss-options", "margin"], "wanted key=value, got 'margin'"),
        (["train", "--data", "mnst"], "unknown data set 'mnst': did you mean 'mnist'?"),
        (["train", "--backbone", "netwrk"], "unknown backbone 'netwrk'"),
        (["train", "--sampler", "pear"], "unknown sampler 'pear': did you mean 'pairs'?"),
        (["train", "--optimizer", "adm"], "unknown optimizer 'adm': did you mean 'adam'?"),
        (["train", "--schedule", "cosin"], "unknown schedule 'cosin': did you mean 'cosine'?"),
        (["train", "--augment", "shft"], "'shft'"),
        (["train", "--precision", "bf17"], "unknown precision 'bf17': did you mean 'bf16'?"),
        (["train", "--keep-images", "0"], "keep_images must be in (0, 1]"),
        (["train", "--keep-classes", "1.5"], "or a whole number from 2 on, got 1.5"),
        (["train", "--keep-classes", "0.5"], "keep_classes wants a data set whose test classes"),
        (["train", "--start", "nowhere.pt"], "nowhere.pt: no such file"),
        (["train", "--recipe"], "--recipe wants a file"),
        (["train", "--recipe=nowhere.json"], "nowhere.json"),
        (["train", "--per-class", "1", "--batch", "4"], "wanted two images of a class in a batch"),
        (["train", "--threads", "-1"], "threads must be 0 to 1024, got -1"),
        (["train", "--threads", "100000000"], "threads must be 0 to 1024, got 100000000"),
        (
            ["study", "toolkit", "--seeds", "99999999999"],
            "seeds must be 1 to 1000, got 99999999999",
        ),
        (["study", "toolkit", "--publish", __file__], "wanted a folder, but"),
        (["train", "--backbone", "identity"], "nothing to train"),
        (["study", "toolkit", "--jobs", "0"], "wanted 1 to 1024 jobs, got 0"),
        (["train", "--batch", "4", "--per-class", "4"], "wanted two classes in a batch"),
        (["train", "--sampler", "pairs"], "ratio-triplet finds nothing to learn from in the pairs"),
        (
            ["train", "--sampler", "pairs", "--loss", "pml:SupConLoss"],
            "finds nothing to learn from in the pairs of sampler=pairs",
        ),
        (
            ["train", "--loss-options", "a=1", "--loss-options", "b=2"],
            "--loss-options is given twice",
        ),
        (["train", "--loss-options", "margin=1", "margin=2"], "margin is given twice"),
        (["study", "toolkit", "--seeds", "-1"], "seeds must be 1 to 1000, got -1"),
        (["study", "toolkit", "--options", "seeds=0"], "seeds must be 1 to 1000, got 0"),
        (["study", "toolkit", "--options", "dims=abc"], "wanted numbers separated by commas"),
        (["study", "toolkit", "--data", "folder:x"], "ten classes that training and test share"),
        (["train", "--recipe", "nowhere.json"], "nowhere.json"),
        (["study", "toolkt"], "unknown study 'toolkt': did you mean 'toolkit'?"),
        (["study", "toolkit", "--options", "sed=3"], "did you mean 'seeds'?"),
        (["evaluate", "--embeddings", "nowhere.npz"], "no such file"),
        (["report", "nowhere"], "holds no rows"),
        (["data", "check", "cup"], "unknown data set 'cup': did you mean 'cub'?"),
        (["embed", "--data", "mnist-5k", "--output", "x.txt"], "must be an .npz file"),
        (["train", "--size", "1"], "size must be 2 pixels or more, or 0, got 1"),
        (["embed", "--data", "cub", "--size", "1", "--output", "x.npz"], "size must be 2 pixels"),
        (
            ["embed", "--data", "mnist-5k", "--output", "x.npz", "--out", "x"],
            "Unrecognized options",
        ),
    ],
)
def test_bad_words_are_refused_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.rglob("rows.jsonl"))


def test_an_interrupt_while_it_is_still_being_imported_is_one_line(capsys, monkeypatch):
    class Stopped:
        def find_spec(self, name, *_):
            if name == "nearkin.app.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "nearkin.app.main")
    monkeypatch.setattr(sys, "meta_path", [Stopped(), *sys.meta_path])
    with pytest.raises(SystemExit) as left:
        nearkin.__main__.main()
    assert (left.value.code, capsys.readouterr().err) == (130, "nearkin: stopped\n")


def test_evaluate_of_what_a_run_kept_says_what_its_row_says(features, tmp_path, capsys):
    main([*trained_into(tmp_path / "out", features), "--metric", "euclidean"])
    (row,) = Store(tmp_path / "out").rows()
    capsys.readouterr()
    kept = tmp_path / "out" / row["files"]["folder"] / "embeddings.npz"
    main(["evaluate", "--embeddings", str(kept)])
    found = json.loads(capsys.readouterr().out)
    assert found.pop("metric") == "euclidean"
    assert found == {name: row["metrics"]["last"][name] for name in found}


def test_what_is_stored_is_said_not_to_have_been_run(features, tmp_path, capsys):
    words = trained_into(tmp_path / "out", features)
    main(words)
    assert "nothing was run" not in capsys.readouterr().err
    main(words)
    said = capsys.readouterr()
    assert "is stored in" in said.err
    assert "nothing was run" in said.err
    assert json.loads(said.out)["status"] == "done"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(capsys, tmp_path):
    assert "wanted a GPU" in refused(capsys, "train", "--device", "cuda", "--out", str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"recipe": 5}', "wanted an object of a recipe's fields, got 5"),
        ('{"batch": "many"}', "batch: wanted a value of type int, got 'many'"),
        ('{"bach": 3}', "unknown field 'bach': did you mean 'batch'?"),
        ("[1]", "wanted an object of a recipe's fields, got [1]"),
        ("{}", "wanted an object of a recipe's fields, got {}"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON: nested too deeply"),
        ("\xff\xfe", "is not JSON"),
        ('{"dim": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"dim": 2, "dim": 3}', "is not JSON: 'dim' is given twice"),
        ('{"data": "a\\u0000b"}', "data: wanted text, got 'a\\x00b', which holds a NUL"),
        ('{"lr": NaN}', "lr must be 0 or more, and finite, got nan"),
    ],
)
def test_a_recipe_file_that_is_none_is_refused(capsys, tmp_path, content, message):
    (tmp_path / "recipe.json").write_text(content, encoding="latin-1")
    words = ["train", "--recipe", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "out")]
    assert message in refused(capsys, *words)
    assert not (tmp_path / "out").exists()


def test_a_recipe_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "recipe.json").write_text('{"dim": 7}', encoding="utf-8-sig")
    assert read_recipe(tmp_path / "recipe.json") == Recipe(dim=7)


@pytest.mark.parametrize("content", ["{}", '{"dim": 8}'])
def test_a_recipe_file_goes_with_train_alone(capsys, tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    words = ["study", "toolkit", "--recipe", str(tmp_path / "recipe.json")]
    assert "--recipe goes with `nearkin train`, not with 'study'" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 3, np.nan, x), y), "row 3"),
        (
            lambda x, y: (np.where(np.arange(len(x))[:, None] == 3, 0, x), y),
            "row 3 holds only zeros",
        ),
        (lambda x, y: (x, y[:-1]), "wanted x (N, D) and y (N,)"),
    ],
)
def test_embeddings_without_neighbours_are_refused(spoil, message, capsys, tmp_path):
    x, y = spoil(np.random.default_rng(0).normal(size=(9, 4)), np.repeat([0, 1, 2], 3))
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    assert message in refused(capsys, "evaluate", "--embeddings", str(tmp_path / "bad.npz"))


def test_a_file_of_no_vectors_is_refused_on_either_side(capsys, tmp_path, features):
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 5)), y=np.zeros(0))
    none, some = str(tmp_path / "none.npz"), features.partition(":")[2]
    assert "holds no vectors" in refused(capsys, "evaluate", "--embeddings", none)
    words = ["evaluate", "--embeddings", some, "--gallery", none]
    assert "holds no vectors" in refused(capsys, *words)


def test_the_metric_of_a_file_is_the_default(capsys, tmp_path, features):
    def told(*words) -> dict:
        main(["evaluate", "--no-clusters", "--embeddings", *map(str, words)])
        return json.loads(capsys.readouterr().out)

    plain = features.partition(":")[2]
    assert told(plain) == told(plain, "--metric", "cosine")
    assert told(plain)["metric"] == "cosine"
    arrays, known = dict(np.load(plain)), tmp_path / "known.npz"
    np.savez(known, **arrays, metric="euclidean")
    assert told(known) == told(plain, "--metric", "euclidean")
    assert told(known)["metric"] == "euclidean"
    assert told(known, "--metric", "inner") == told(plain, "--metric", "inner")
    np.savez(known, **arrays, metric="euclid")
    said = refused(capsys, "evaluate", "--embeddings", str(known))
    assert f"unknown metric of {known} 'euclid': did you mean 'euclidean'?" in said
    said = refused(capsys, "evaluate", "--embeddings", plain, "--metric", "cos")
    assert "'cos': did you mean 'cosine'?" in said


def test_every_kind_of_name_is_listed(capsys):
    from nearkin.losses import make_miner

    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    listed = {kind: names.split(", ") for kind, _, names in (x.partition(": ") for x in lines)}
    assert listed["metrics"] == ["cosine", "inner", "euclidean"]
    assert listed["precisions"] == ["float32", "bf16"]
    assert listed["refinements"] == ["gallery", "reciprocal"]
    assert "pml:CLASS" in listed["losses"]
    assert "pml:MultiSimilarityMiner" in listed["miners"]
    assert all(make_miner(name) for name in listed["miners"])


def test_labels_beyond_a_loss_are_refused():
    from nearkin.losses import make

    loss = make("proxy-gml", {"ratio": 0.6}, classes=3, dim=4)
    with pytest.raises(ValueError, match="3"):
        loss(torch.randn(4, 4), torch.tensor([0, 1, 2, 3]))


def test_a_class_with_one_image_cannot_give_a_pair(capsys, tmp_path):
    np.savez(tmp_path / "one.npz", x=np.random.default_rng(0).normal(size=(8, 4)), y=np.arange(8))
    words = ["train", "--data", f"features:{tmp_path / 'one.npz'}", "--backbone", "linear"]
    words += ["--sampler", "pairs", "--out", str(tmp_path / "out")]
    refused(capsys, *words)
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_one_test_image_of_a_class_is_sought_among_the_training_images(tmp_path):
    """Nobody is its kin among the test images, so that the row holds no recall@1 of these."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 3))
    for kind, (part, count) in product(range(4), {"train": 4, "test": 1}.items()):
        (folder := tmp_path / "photos" / part / f"c{kind}").mkdir(parents=True)
        for i in range(count):
            picture = Image.new("RGB", (20, 20 + i), tuple(map(int, colours[kind])))
            picture.save(folder / f"{part}{i}.png")
    data = f"folder:{tmp_path / 'photos'}"
    words = ["train", "--data", data, "--backbone", "linear", "--epochs", "1", "--batch", "8"]
    main([*words, "--per-class", "2", "--dim", "4", "--out", str(tmp_path / "out")])
    (row,) = Store(tmp_path / "out").rows()
    found = row.metrics.last or {}
    assert "recall@1" not in found
    assert {"in_train.recall@1", "knn_accuracy"} <= found.keys()
    page = (tmp_path / "out" / "report" / "runs.html").read_text()
    assert "R@1 among training images" in page
    assert "no two of them are of one class" in page
    assert "On ," not in page


def test_an_unwritable_folder_is_said_in_one_line(capsys, tmp_path, features):
    (tmp_path / "file").write_text("in the way")
    words = ["train", "--data", features, "--backbone", "linear", "--out", str(tmp_path / "file")]
    assert "file" in refused(capsys, *words)


def test_a_full_disk_leaves_no_half_row(capsys, tmp_path, features, monkeypatch):
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    words = ["train", "--data", features, "--backbone", "linear", "--epochs", "1", "--batch", "12"]
    words += ["--per-class", "3", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("os.fsync", full)
    assert "No space left on device" in refused(capsys, *words)
    monkeypatch.undo()
    assert Store(tmp_path / "out").rows() == []
    assert not list((tmp_path / "out").rglob(".*.pt.*"))
    main(words)
    assert len(Store(tmp_path / "out").rows()) == 1


def test_train_evaluate_and_report_go_through(capsys, tmp_path, features):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"backbone": "linear", "epochs": 1, "batch": 12, "per_class": 3}))
    words = ["--recipe", str(recipe), "--data", features, "--dim", "3", "--device", "cpu"]
    main(["train", *words, "--loss", "contrastive", "--out", str(tmp_path / "out")])
    said = json.loads(capsys.readouterr().out)
    (row,) = Store(tmp_path / "out").rows()
    assert row.recipe.dim == 3
    assert said["last"]["recall@1"] == row["metrics"]["last"]["recall@1"]
    kept = tmp_path / "out" / row["files"]["folder"] / "embeddings.npz"
    main(["evaluate", "--embeddings", str(kept), "--metric", "euclidean"])
    again = json.loads(capsys.readouterr().out)
    assert again["recall@1"] == row["metrics"]["last"]["recall@1"]
    main(["evaluate", "--embeddings", str(kept), "--ks", "1", "3", "--intervals", "--no-clusters"])
    ours = json.loads(capsys.readouterr().out)
    assert not {"recall@2", "nmi"} & set(ours)
    assert ours["recall@3/low"] <= ours["recall@3"] <= ours["recall@3/high"]

    main(["train", *words, "--loss", "ratio-triplet", "--out", str(tmp_path / "out")])
    main(["report", str(tmp_path / "out"), "--publish", str(tmp_path / "published")])
    page = (tmp_path / "out" / "report" / "runs.md").read_text()
    assert (tmp_path / "published" / "runs.md").is_file()
    assert len(Store(tmp_path / "published", "runs.jsonl").rows()) == 3
    assert "| no training | features:points |" in page
    for row in Store(tmp_path / "out").rows():
        if not row.recipe.epochs:
            continue
        scored = f"{100 * row['metrics']['last']['recall@1']:.1f}"
        assert f"| {row['recipe']['loss']} | features:points | {scored}" in page.replace("**", "")


def test_data_are_unpacked_where_they_are_looked_for(capsys, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set/a.txt", "a")
    monkeypatch.setenv("NEARKIN_DATA", str(tmp_path / "sets"))
    main(["data", "unpack", str(tmp_path / "set.zip")])
    assert (tmp_path / "sets" / "set" / "a.txt").read_text() == "a"
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../a.txt", "a")
    assert "points outside the folder" in refused(
        capsys, "data", "unpack", str(tmp_path / "bad.zip")
    )


def test_a_study_without_a_short_form_does_not_run_its_long_one(capsys):
    assert "'transfer' has no short form" in refused(capsys, "study", "transfer", "--demo")


def test_of_a_file_with_splits_queries_are_searched_in_the_gallery(capsys, tmp_path):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 4)), np.repeat(np.arange(6), 10)
    split = np.array((["train"] * 4 + ["query"] * 3 + ["gallery"] * 3) * 6)
    np.savez(tmp_path / "all.npz", x=x, y=y, split=split)
    for part in ("query", "gallery"):
        np.savez(tmp_path / f"{part}.npz", x=x[split == part], y=y[split == part])
    words = ["evaluate", "--embeddings", str(tmp_path / "all.npz")]
    main(words)
    whole = capsys.readouterr().out
    words = ["evaluate", "--embeddings", str(tmp_path / "query.npz")]
    main([*words, "--gallery", str(tmp_path / "gallery.npz")])
    assert capsys.readouterr().out == whole
    np.savez(tmp_path / "two.npz", x=x, y=y, split=np.where(split == "train", "train", "query"))
    np.savez(tmp_path / "rest.npz", x=x[split != "train"], y=y[split != "train"])
    told = []
    for name in ("two", "rest"):
        main(["evaluate", "--embeddings", str(tmp_path / f"{name}.npz")])
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


WARN = """
import warnings
from nearkin.app.main import COMMANDS, main

def warn() -> None:
    'Warn.'
    warnings.warn("two\\nlines")

before, COMMANDS["warn"] = warnings.formatwarning, warn
main(["warn"])
assert warnings.formatwarning is before
"""


def test_a_warning_is_one_line_without_code_and_others_stay_as_they_are():
    done = subprocess.run([sys.executable, "-c", WARN], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "nearkin: two lines\n")


@pytest.mark.parametrize("words", ["list", "--help", "train --help", "data where cub"])
def test_a_reader_who_has_seen_enough_ends_it_quietly(words):
    read, write = os.pipe()
    os.close(read)
    asked = [sys.executable, "-m", "nearkin", *words.split()]
    done = subprocess.run(asked, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_embeddings_of_a_run_become_features(capsys, tmp_path, features):
    words = [
        "--backbone",
        "mlp",
        "--epochs",
        "1",
        "--batch",
        "12",
        "--per-class",
        "3",
        "--dim",
        "3",
    ]
    main(["train", "--data", features, *words, "--out", str(tmp_path / "out")])
    (kept,) = (path.parent for path in tmp_path.glob("out/runs/*/config.json"))
    output = tmp_path / "again.npz"
    capsys.readouterr()
    main(["embed", "--data", features, "--checkpoint", str(kept), "--output", str(output)])
    assert capsys.readouterr().out == f"{output}: 48 embeddings, for features:{output}\n"
    with np.load(output) as file:
        assert file["x"].shape == (48, 3)
        assert sorted(set(file["split"])) == ["query", "train"]
    assert not list(tmp_path.glob(".again*"))


def test_every_command_has_help_with_an_example(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0
        assert f"nearkin {name}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(f"nearkin {name}" in said for name in COMMANDS)


def test_key_values_are_numbers_truths_or_words():
    words = ["a=1", "b=0.5", "c=true", "d=printed", "e=null", "f=[1]", "g=x=y"]
    assert key_values(words) == {
        "a": 1, "b": 0.5, "c": True, "d": "printed", "e": None, "f": "[1]", "g": "x=y",
    }  # fmt: skip


def short_study(name: str, data: str) -> list[str]:
    """The words of a study of one seed and one epoch on eighty classes of features."""
    random, y = np.random.default_rng(0), np.repeat(np.arange(80), 5)
    np.savez(data, x=random.normal(size=(80, 6))[y] + random.random((400, 6)), y=y)
    words = ["study", name, "--data", f"features:{data}", "--seeds", "1", "--epochs", "1"]
    return [*words, "--options", "tune=false"]


def test_pages_are_made_anew_from_what_is_stored(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["--root", str(tmp_path), "--out", "out"]
    main([*short_study("graph-gain", "one.npz"), *where])
    main([*short_study("graph-gain", "two.npz"), *where])
    main([*short_study("edges", "one.npz"), *where])  # most of its rows are graph-gain's
    pages = {p.name: p.read_text() for p in Path("out/report").glob("*.md")}
    names = ["graph-gain-one-epochs-1.md", "graph-gain-two-epochs-1.md", "edges-one-epochs-1.md"]
    assert sorted(pages) == sorted(names)
    for page in Path("out/report").glob("*.*"):
        page.unlink()
    capsys.readouterr()
    main(["report", "out", "--study", "edges", "--publish", "published"])
    assert {p.name for p in Path("out/report").glob("*.md")} == {"edges-one-epochs-1.md"}
    assert Path("published/edges-one-epochs-1.jsonl").exists()
    main(["report", "out"])
    assert {p.name: p.read_text() for p in Path("out/report").glob("*.md")} == pages
    assert "holds no page of study 'graph'" in refused(capsys, "report", "out", "--study", "graph")

    kept = Path("out/rows.jsonl").read_text().splitlines(keepends=True)
    Path("out/rows.jsonl").write_text("".join(kept[:3]))  # as of a study that goes on elsewhere
    main(["report", "out"])
    said = capsys.readouterr().out
    assert "graph-gain-one-epochs-1: 3 of 14 runs are done" in said
    assert "graph-gain-two-epochs-1: 0 of 14 runs are done" in said
    note = Path("out/pages/edges-one-epochs-1.json")
    told = json.loads(note.read_text())
    cases = ({"cases": 5}, {"cases": [5]}, {"cases": [{"case": {}, "run": "a"}]}, {"trials": 5})
    for spoilt in ({"name": "../../elsewhere"}, *cases, {"trials": [5]}, {"more": 1}):
        note.write_text(json.dumps(told | spoilt))
        said = refused(capsys, "report", "out")
        assert "edges-one-epochs-1.json is not the note of a page" in said
    for text in ("{", "[" * 100_000, "5"):
        note.write_text(text)
        said = refused(capsys, "report", "out")
        assert "edges-one-epochs-1.json is not the note of a page" in said
    assert not list(tmp_path.rglob("elsewhere*"))


def test_what_is_published_is_not_run_again(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = short_study("graph-gain", "many.npz")
    words += ["start=orthogonal", "--publish", "published", "--root", str(tmp_path)]
    main([*words, "--out", "first"])
    written = tmp_path / "published" / "graph-gain-many-epochs-1-orthogonal.md"
    page = written.read_text()
    command = " ".join(["nearkin", *words[: words.index("--publish")]])
    assert f"    {command}\n" in page
    assert str(tmp_path) not in page
    published = Store(tmp_path / "published", "graph-gain-many-epochs-1-orthogonal.jsonl")
    assert len(published.rows()) == 14  # 6 methods by 2 kinds of batch, and 2 controls

    row = published.rows()[-1]  # one that another command has published
    published.append(replace(row, hash="another", recipe=replace(row.recipe, seed=1)))
    rows = published.rows()
    monkeypatch.setattr("nearkin.runs.engine.carry_out", None)  # nothing is trained any more
    Path("many.npz").unlink()  # nor looked at
    main([*words, "--out", "second"])
    assert published.rows() == rows
    assert written.read_text() == page


def test_the_home_folder_is_meant_by_a_tilde_in_every_path(tmp_path, monkeypatch, capsys):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    np.savez(home / "x.npz", x=np.random.default_rng(0).normal(size=(12, 4)), y=np.arange(12) // 4)
    main(["evaluate", "--no-clusters", "--embeddings=~/x.npz"])
    assert "recall@1" in capsys.readouterr().out
    options = ["--backbone", "linear", "--dim", "2", "--epochs", "0", "--threads", "1"]
    main(["train", "--data", "features:~/x.npz", *options, "--out", "~/runs"])
    main(["embed", "--data", "~/x.npz", "--backbone", "identity", "--output=~/y.npz"])
    assert {path.name for path in home.iterdir()} == {"runs", "x.npz", "y.npz"}
    assert not list(here.iterdir())


def test_what_stands_beside_a_run_may_fail_and_the_run_does_not(
    capsys, tmp_path, features, monkeypatch
):
    words = ["train", "--data", features, "--backbone", "linear", "--epochs", "1", "--batch", "12"]
    words += ["--per-class", "3", "--out", str(tmp_path / "out")]
    plain = engine.run

    def failing(recipe, out, **options):
        if out.name == "no-training":
            raise OSError(28, "No space left on device")
        return plain(recipe, out, **options)

    monkeypatch.setattr(engine, "run", failing)
    with pytest.warns(UserWarning, match="no training could not be measured"):
        main(words)
    assert json.loads(capsys.readouterr().out)["status"] == "done"
    assert len(Store(tmp_path / "out").rows()) == 1


def test_a_stored_run_of_a_read_only_folder_is_printed(capsys, tmp_path, features, monkeypatch):
    words = ["train", "--data", features, "--backbone", "linear", "--epochs", "1", "--batch", "12"]
    words += ["--per-class", "3", "--out", str(tmp_path / "out")]
    main(words)
    first = json.loads(capsys.readouterr().out)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("nearkin.models.folder.forget", refuse)
    monkeypatch.setattr("nearkin.app.report.page_of_runs", refuse)
    main(words)
    said = capsys.readouterr()
    assert json.loads(said.out) == first
    assert "no page: [Errno 30]" in said.err


def test_a_folder_of_many_rows_gets_its_page_by_report_alone(
    capsys, tmp_path, features, monkeypatch
):
    """The page would cost more than the run, and the more the more runs a folder holds."""
    words = ["train", "--data", features, "--epochs", "1", "--batch", "12", "--per-class", "3"]
    words += ["--dim", "4", "--out", str(tmp_path / "out")]
    page = tmp_path / "out" / "report" / "runs.html"
    monkeypatch.setattr(import_module("nearkin.app.train"), "MOST", 1)
    main(words)
    before = page.read_bytes()
    capsys.readouterr()
    main([*words, "--seed", "1"])
    assert "holds 2 rows: `nearkin report" in capsys.readouterr().err
    assert page.read_bytes() == before
    main(["report", str(tmp_path / "out")])
    assert page.read_bytes() != before
