"""Claim: train, embed and data check take data as people have them: a folder, a table, a file of
features by their paths alone, and folders in which --labels says what names a class."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nearkin as nk
from nearkin.app.main import main
from nearkin.data.sets.features import parts_of
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.runs.store import Store

SHORT = ["--epochs", "1", "--batch", "8", "--per-class", "2", "--dim", "4", "--threads", "1"]
CLASSES = [f"{shelf}/{product}" for shelf in "AB" for product in "xyz"]


@pytest.fixture(autouse=True)
def grocery(tmp_path, monkeypatch):
    """photos/A/x/0.png ..., images.csv, and x.npz, in the folder that everything is typed in."""
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    lines = ["path,class"]
    for name in CLASSES:
        Path("photos", name).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{i}.png")
            lines.append(f"photos/{name}/{i}.png,{name}")
    Path("images.csv").write_text("\n".join(lines))
    y = np.repeat(np.arange(12), 8)
    np.savez("x.npz", x=random.normal(size=(96, 8)).astype(np.float32), y=y)


def row(out: str = "out") -> Row:
    (found,) = Store(out).stored().values()
    assert isinstance(found, Row)
    return found


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as leave:
        main([*words])
    assert leave.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("words", "name", "classes"),
    [
        (["photos/", "--labels", "nested"], "nested:photos/", 3),
        (["photos", "--labels", "nested"], "nested:photos", 3),
        (["folder:photos", "--labels", "nested"], "nested:photos", 3),
        (["photos", "--labels", "top"], "top:photos", 1),
        (["images.csv"], "images.csv", 3),
        (["x.npz"], "x.npz", 6),
    ],
)
def test_data_are_embedded_and_trained_on_under_the_name_that_was_typed(words, name, classes):
    data, *labels = words
    whole = ["--backbone", "identity", "--output", "e.npz"]
    main(["embed", "--data", data, *labels, *whole, "--threads", "1"])
    parts = parts_of(Path("e.npz"))
    assert len(parts["train"].labels.unique()) == classes
    main(["data", "check", data, *labels])
    if classes > 1:
        main(["train", "--data", data, *labels, *SHORT])
        assert row().recipe.data == name
        assert row().recipe.backbone == ("linear" if name == "x.npz" else "network")


def test_a_check_says_where_pictures_are_kept_in_its_report_and_not_as_an_error(capsys):
    main(["data", "check", "photos", "--labels", "nested"])
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count("of decoded pictures in") == 1


def test_a_folder_of_folders_asks_which_name_the_class(capsys):
    for words in (["train", *SHORT], ["embed", "--output", "e.npz"]):
        said = refused(capsys, *words, "--data", "photos")
        assert "top:photos takes A for a class (2 classes" in said
        assert "nested:photos each folder inside (6 classes)" in said
    assert not Path("e.npz").exists()
    assert not Path("out/rows.jsonl").exists()


@pytest.mark.parametrize("data", ["x.npz", "images.csv", "mnist-5k", "features:x.npz"])
def test_labels_go_with_folders_alone(capsys, data):
    for words in (["train"], ["embed", "--output", "e.npz"]):
        said = refused(capsys, *words, "--data", data, "--labels", "top")
        assert said == f"nearkin: labels=top goes with a folder of pictures, got {data}\n"
    assert "invalid choice 'tip'" in refused(capsys, "train", "--labels", "tip")


def test_features_take_a_linear_head_unasked_and_the_row_names_it(capsys):
    main(["train", "--data", "x.npz", *SHORT])
    first = json.loads(capsys.readouterr().out)
    main(["train", "--data", "x.npz", "--backbone", "linear", *SHORT])
    assert json.loads(capsys.readouterr().out) == first
    assert row().recipe.backbone == "linear"
    said = refused(capsys, "train", "--data", "x.npz", "--backbone-options", "filters=4", *SHORT)
    assert "backbone 'network' wanted pictures" in said
    main(["train", "--data", "x.npz", "--backbone", "mlp", "--out", "mlp", *SHORT])
    assert row("mlp").recipe.backbone == "mlp"


def test_own_vectors_take_one_too_and_own_pictures_do_not():
    recipe = Recipe(epochs=1, batch=8, per_class=2, dim=4)
    x, y = np.random.default_rng(0).normal(size=(48, 5)), np.arange(48) % 6
    place = nk.Place(device="cpu", threads=1)
    found = nk.run(recipe, splits=(x, y), place=place)
    assert found.row.recipe.backbone == "linear"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 9, 9, 3), dtype=np.uint8)
    assert nk.run(recipe, splits=(pixels, y), place=place).row.recipe.backbone == "network"


def test_a_machine_that_starts_no_more_threads_is_one_line(capsys, monkeypatch):
    def start(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", start)
    said = refused(capsys, "train", "--data", "x.npz", "--backbone", "linear", *SHORT)
    assert said.startswith("nearkin: can't start new thread")
    assert not Path("out/rows.jsonl").exists()


def test_what_tells_nothing_is_said(capsys):
    x = np.random.default_rng(0).normal(size=(8, 4))
    np.savez("one.npz", x=x, y=np.zeros(8, int))
    main(["evaluate", "--embeddings", "one.npz", "--no-clusters"])
    assert "tested on one class: whatever is nearest is kin" in capsys.readouterr().err
    np.savez("alone.npz", x=x, y=np.arange(8))
    for name, said in (("one", "two classes or more, got 1"), ("alone", "no class has two items")):
        with pytest.raises(SystemExit):
            main(["doctor", f"{name}.npz"])
        assert said in capsys.readouterr().err


def test_a_run_tested_on_one_class_says_so(capsys):
    x = np.random.default_rng(0).normal(size=(24, 4))
    np.savez("three.npz", x=x, y=np.arange(24) % 3)
    main(["train", "--data", "three.npz", "--out", "o", *SHORT])
    assert "nearkin: tested on one class" in capsys.readouterr().err
    main(["train", "--data", "x.npz", "--out", "o", *SHORT])
    assert "tested on one class" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--augment shift", "features cannot be augmented, got augment='shift'"),
        ("--batch 7", "batch must be a multiple of per_class, got 7 and 2"),
        ("--start nosuch", "start nosuch: no such file or folder"),
        ("--loss-options", "--loss-options wants one value or more"),
        ("--loss-options --lr 1", "--loss-options wants one value or more"),
    ],
)
def test_a_refusal_is_one_line_whatever_would_have_been_told(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("f4")
    np.savez("x.npz", x=x, y=np.repeat(np.arange(10), 4))
    batch = "" if "--batch" in words else " --batch 8"
    line = f"train --data x.npz --loss contrastive --dim 2{batch} --per-class 2 {words}"
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert said in told[0]
    assert not (tmp_path / "out").exists()


def test_a_page_that_cannot_be_drawn_does_not_fail_a_run_that_is_done(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("f4")
    np.savez("x.npz", x=x, y=np.repeat(np.arange(10), 4))

    def page(out):
        raise ValueError(
            "Key backend: 'x' is not a valid value"
        )  # as matplotlib says of MPLBACKEND

    monkeypatch.setattr("nearkin.app.report.page_of_runs", page)
    line = "train --data x.npz --loss contrastive --dim 2 --batch 8 --per-class 2 --epochs 0"
    main(line.split())
    told = capsys.readouterr()
    assert json.loads(told.out)["status"] == "done"
    assert "nearkin: no page: Key backend: 'x' is not a valid value" in told.err
