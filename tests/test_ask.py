"""A study is asked from Python: checked before its first run, noted, and read from its cases."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nearkin as nk
from finished import finished, with_last
from nearkin.answers import Answer, Finding
from nearkin.names import look_up
from nearkin.registry import STUDIES
from nearkin.runs import executors
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Measurement, Row
from nearkin.runs.store import Store
from nearkin.studies.ask import Outcome, ask, command, page_name
from nearkin.studies.notes import Note, notes, read_note
from nearkin.studies.shared.comparable import comparable
from nearkin.studies.study import Case, Study

CPU = nk.Place(device="cpu", threads=1)


@pytest.fixture
def features(tmp_path) -> str:
    """Forty classes of eight points."""
    random, y = np.random.default_rng(0), np.repeat(np.arange(40), 8)
    path = tmp_path / "points.npz"
    np.savez(path, x=random.normal(size=(40, 6))[y] + random.random((320, 6)), y=y)
    return f"features:{path}"


def test_a_case_is_its_method_seed_and_axes_in_any_order():
    case = Case("a", 1, dim=2, under="b")
    assert case == Case("a", seed=1, under="b", dim=2) != Case("a", 1, dim=2)
    assert {case: 5}[Case(**case.plain())] == 5
    assert (case["dim"], case.get("x", 7), "dim" in case, "x" in case) == (2, 7, True, False)
    assert case.on(dim=2, method="a", seed=1)
    assert not case.on(dim=3)
    assert not case.on(x=None)
    assert case.label == "a, dim 2, under b"
    assert json.loads(json.dumps(case.plain())) == case.plain()


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_value(name):
    study = look_up(name, STUDIES, "study")
    assert isinstance(study, Study)
    assert isinstance(study.answer({}), Answer)
    assert study.title
    assert len(study.question.split()) > 20


def test_a_study_asks_for_runs_or_for_measurements():
    with pytest.raises(ValueError, match="wanted recipes, or measure in their place"):
        Study("t", "q", lambda rows: Answer("t", "q"))


def test_an_answer_is_had_from_python_and_its_rows_are_noted(features, tmp_path):
    options = {"data": features, "seeds": 1, "epochs": 1, "tune": False, "start": "orthogonal"}
    answer = nk.study("graph-gain", out=tmp_path / "out", place=CPU, **options)
    assert len(answer.tables[1].rows) == 14
    (note,) = notes(tmp_path / "out")
    assert (note.name, note.study, note.data) == (
        "graph-gain-points-epochs-1-orthogonal",
        "graph-gain",
        features,
    )
    stored = Store(tmp_path / "out").stored()
    assert len(note.found(stored)) == len(note.cases) == 14
    read = look_up("graph-gain", STUDIES, "study").answer
    assert Outcome(read, note, note.found(stored)).answer == answer


def test_settings_are_searched_before_and_their_trials_noted(features, tmp_path):
    options = {
        "data": features,
        "seeds": 1,
        "steps": 12,
        "methods": "contrastive",
        "ways": "images",
        "start": "orthogonal",
    }
    outcome = ask("samples", options, out=tmp_path, place=CPU)
    assert len(outcome.trials) == len(outcome.note.trials) == 12
    assert all(row.recipe.trial for row in outcome.trials)
    best = max(
        (row for row in outcome.trials),
        key=lambda row: max((e.validation or {})["recall@1"] for e in row.epochs),
    )
    assert best.recipe.lr in {
        row.recipe.lr for row in outcome.rows.values() if isinstance(row, Row)
    }


def none(*_, **__):
    raise AssertionError("a run was begun")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toolkt", {}, "unknown study 'toolkt': did you mean 'toolkit'"),
        ("toolkit", {"sed": 3}, "unknown option of study 'toolkit' 'sed': did you mean 'seeds'"),
        ("toolkit", {"seeds": 0}, "seeds must be 1 to 1000, got 0"),
        ("toolkit", {"seeds": "three"}, "wanted a value of type int, got 'three'"),
        ("toolkit", {"methods": "triplet"}, "unknown method 'triplet'"),
        ("rivals", {"data": "cuub"}, "unknown data set 'cuub': did you mean 'cub'"),
        ("samples", {"ways": "pictures"}, "unknown way 'pictures'"),
    ],
)
def test_what_is_wrong_is_told_before_the_first_run(name, options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "run", none)
    with pytest.raises(ValueError, match=message):
        nk.study(name, out=tmp_path / "out", place=CPU, **options)
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_a_study_knows_the_command_that_asks_for_it_again():
    asked = {"data": "omniglot", "seeds": 3, "tune": False, "dims": 64}
    words = "nearkin study rivals --data omniglot --seeds 3 --options tune=false dims=64"
    assert command("rivals", asked) == words
    assert command("toolkit", {}) == "nearkin study toolkit"
    assert command("toolkit", {"seeds": 1}, demo=True) == "nearkin study toolkit --seeds 1 --demo"
    spaced = command("samples", {"methods": "ProxyGML,intra-batch dot-product"})
    assert "'methods=ProxyGML,intra-batch dot-product'" in spaced


def test_a_page_is_named_by_its_data_sets(tmp_path):
    def named(name: str, demo: bool = False, **options) -> str:
        return page_name(name, options, demo, tmp_path)

    assert named("toolkit") == "toolkit"
    assert named("transfer", data="features:a/cub.npz,features:cars.npz") == "transfer-cub-cars"
    assert named("toolkit", data="mnist", epochs=8) == "toolkit-mnist-epochs-8"
    assert named("toolkit", demo=True) == "toolkit-demo"


def test_two_data_sets_of_one_name_have_two_pages(tmp_path):
    birds, cars = ({"data": f"features:{folder}/x.npz"} for folder in ("birds", "cars"))
    Note(page_name("rivals", birds, False, tmp_path), "rivals", "", birds["data"]).write(tmp_path)
    assert page_name("rivals", birds | {"seeds": 3}, False, tmp_path) == "rivals-x"
    other = page_name("rivals", cars, False, tmp_path)
    assert other.startswith("rivals-x-")
    Note(other, "rivals", "", cars["data"]).write(tmp_path)
    assert page_name("rivals", cars, False, tmp_path) == other
    assert page_name("rivals", birds, False, tmp_path) == "rivals-x"


def test_a_note_is_read_as_it_was_written(tmp_path):
    cases = {Case("a", 1, dim=2): "0123", Case("b"): "0123"}
    note = Note("page", "rivals", "nearkin study rivals", "cub", cases, ("4567",))
    note.write(tmp_path)
    assert notes(tmp_path) == [note]
    assert note.found({"0123": 5, "89ab": 6}) == dict.fromkeys(cases, 5)


def test_a_note_of_an_older_version_is_named_with_its_command(tmp_path):
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"name": "page", "study": "s", "command": "c", "rows": []}))
    with pytest.raises(ValueError, match="is of an older version: ask for the page anew, c"):
        read_note(path)


ROW = finished(Recipe(data="features:x.npz"), 0.5)


def of(fingerprint: str):
    return replace(ROW, data=replace(ROW.data, fingerprint=fingerprint))


def test_rows_of_other_data_are_named_and_left_out():
    rows = {Case("a", 0): of("one"), Case("a", 1): of("two"), Case("b", 0): of("one")}
    kept, (remark,) = comparable(rows)
    assert list(kept) == [Case("a", 0), Case("b", 0)]
    assert remark == "Of other data under the name features:x.npz, and left out: a, seed 1."
    many = {Case("c", seed): of("two") for seed in range(5)}
    _, (remark,) = comparable({**rows, **many})
    assert remark.endswith("left out: a, seed 0; b, seed 0.")
    measured = {Case("a", 0): Measurement("1", {}, Data("x", fingerprint="one"))}
    measured[Case("a", 1)] = Measurement("2", {}, Data("x", fingerprint="two"))
    assert len(comparable(measured)[0]) == 1


def test_rows_that_do_not_know_their_data_stay_and_are_counted():
    kept, remarks = comparable({Case("a", 0): ROW, Case("a", 1): ROW})
    assert (len(kept), remarks) == (2, [])
    kept, (remark,) = comparable({Case("a", 0): ROW, Case("a", 1): of("one")})
    assert len(kept) == 2
    assert remark.endswith("differ from those of the others: 1 of the 2 rows of features:x.npz.")


def test_data_of_different_names_are_no_other_data():
    other = replace(of("two"), data=Data("y", fingerprint="two"))
    assert comparable({Case("a", 0): of("one"), Case("b", 0): other})[1] == []


def test_an_older_version_of_a_metric_is_left_out_of_it_alone():
    new = replace(with_last(ROW, nmi=0.9), metric_versions={"nmi": 2})
    old = with_last(ROW, nmi=0.1)
    kept, (remark,) = comparable({Case("a", 0): old, Case("a", 1): new})
    assert kept[Case("a", 0)].metrics.last == {
        k: v for k, v in (old.metrics.last or {}).items() if k != "nmi"
    }
    assert kept[Case("a", 1)] == new
    assert remark == (
        "An earlier version of NMI measured 1 of the 2 runs. Its k-means began at one random "
        "start; today's keeps the best of several k-means++ starts. Numbers of the two "
        "versions cannot be compared, so no NMI is taken from there, but every other "
        "number is: a, seed 0."
    )
    assert comparable({Case("a", 0): old, Case("a", 1): old}) == (
        {Case("a", 0): old, Case("a", 1): old},
        [],
    )


def test_an_answer_tells_what_was_left_out():
    read = lambda rows: Answer("t", "q", (Finding(f"{len(rows)} rows"),))  # noqa: E731
    rows = {Case("a", 0): of("one"), Case("a", 1): of("one"), Case("a", 2): of("two")}
    answer = Outcome(read, Note("n", "s", "c"), rows).answer
    assert str(answer.findings[0]) == "2 rows"
    assert "a, seed 2" in answer.remarks[0]


def test_complete_gives_rows_the_names_of_their_recipes(features, tmp_path: Path):
    base = Recipe(data=features, backbone="linear", dim=4, epochs=1, batch=20)
    recipes = {"one": base, "two": replace(base, seed=1), "again": base}
    rows = nk.complete(recipes, tmp_path / "out", place=CPU)
    assert list(rows) == ["one", "two", "again"]
    assert rows["one"] == rows["again"] != rows["two"]
    assert {name: row.recipe.seed for name, row in rows.items()} == {"one": 0, "two": 1, "again": 0}
