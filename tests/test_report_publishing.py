"""What is published of runs: results whole, and of the trials what chose."""

import json
from dataclasses import replace

import numpy as np
import pytest

from finished import finished
from nearkin.answers import Answer
from nearkin.app.main import main
from nearkin.report import publishing
from nearkin.report.publishing import keep, published, take
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Metrics, Row, to_json
from nearkin.runs.store import Store
from nearkin.studies.ask import Outcome
from nearkin.studies.notes import Note
from nearkin.studies.shared.reading import scores
from nearkin.studies.shared.tuning import settle
from nearkin.studies.study import Case

CPU = Place(device="cpu", threads=1)


@pytest.fixture
def recipe(tmp_path):
    random, y = np.random.default_rng(0), np.repeat(np.arange(20), 8)
    np.savez(tmp_path / "points.npz", x=random.normal(size=(20, 6))[y], y=y)
    base = Recipe(data=f"features:{tmp_path / 'points.npz'}", backbone="linear", dim=4, epochs=2)
    return replace(base, batch=12, per_class=3, loss="graph-refinement")


def outcome_of(rows, trials=(), read=lambda rows: Answer("t", "q")) -> Outcome:
    """What came of a study named any; each row under a case of its own."""
    cases = {Case("a", seed): row for seed, row in enumerate(rows)}
    return Outcome(read, Note("any", "any", "nearkin study any"), cases, trials)


def test_a_trial_is_published_without_test_numbers_and_chooses_as_before(recipe, tmp_path):
    asked = [replace(recipe, validate=True, trial=True), recipe]
    rows = [run(each, tmp_path / "out", place=CPU).row for each in asked]
    seen = []
    read = lambda shown: seen.extend(shown.values()) or Answer("t", "q")  # noqa: E731
    keep(outcome_of(rows[1:], rows[:1], read), tmp_path / "out", tmp_path / "published")
    (result,) = Store(tmp_path / "published", "any.jsonl").rows()
    (trial,) = Store(tmp_path / "published", "any-trials.jsonl").rows()
    assert [row.hash for row in seen] == [result.hash]
    assert "test" not in json.dumps(to_json(trial)["epochs"])
    assert "monitor" not in json.dumps(to_json(trial))
    assert trial.metrics == Metrics(None)
    assert result.epochs[-1].test
    assert result.epochs[-1].monitor
    chosen = [settle(recipe, {Case("a"): one}, "a") for one in (trial, rows[0])]
    assert chosen[0] == chosen[1] != recipe
    for row, whole in ((trial, rows[0]), (result, rows[1])):
        assert row.recipe == whole.recipe
    assert result.metrics.last == pytest.approx(rows[1].metrics.last, rel=1e-5)
    assert b'": ' not in (tmp_path / "published" / "any.jsonl").read_bytes()

    take(tmp_path / "published", "any", tmp_path / "another")
    assert Store(tmp_path / "another").rows() == [result, trial]
    keep(outcome_of([result], [trial]), tmp_path / "another", tmp_path / "published")
    assert len(Store(tmp_path / "published", "any-trials.jsonl").rows()) == 1


@pytest.mark.parametrize("kind", ["", "-trials"])
def test_many_rows_are_published_in_parts(recipe, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(publishing.PARTS, kind, 2)
    trial = kind == "-trials"
    asked = [replace(recipe, validate=trial, trial=trial, seed=seed) for seed in range(5)]
    rows = [run(each, tmp_path / "out", place=CPU).row for each in asked]
    for known in (1, 5, 5):  # those that are there already stay where they are
        some = rows[:known]
        outcome = outcome_of([], some) if trial else outcome_of(some, [])
        keep(outcome, tmp_path / "out", tmp_path / "published")
    names = [f"any{kind}", *(f"any{kind or '-rows'}-{i}" for i in (2, 3))]
    parts = [Store(tmp_path / "published", f"{name}.jsonl").rows() for name in names]
    assert [[row.recipe.seed for row in part] for part in parts] == [[0, 1], [2, 3], [4]]
    take(tmp_path / "published", "any", tmp_path / "another")
    assert len(Store(tmp_path / "another").rows()) == 5


def test_a_single_run_that_validates_is_reported(recipe, tmp_path):
    row = run(replace(recipe, validate=True), tmp_path / "out", place=CPU)
    main(["report", str(tmp_path / "out"), "--publish", str(tmp_path / "published")])
    page = (tmp_path / "published" / "runs.md").read_text()
    assert f"{100 * row['metrics']['validated']['recall@1']:.1f}" in page
    assert Store(tmp_path / "published", "runs.jsonl").rows()[0].metrics.best_on_test


def test_a_row_that_is_published_is_shown_as_it_is_published(recipe, tmp_path):
    row, seen = run(recipe, tmp_path / "out", place=CPU).row, []
    read = lambda shown: seen.append([*shown.values()]) or Answer("t", "q")  # noqa: E731
    keep(outcome_of([row], (), read), tmp_path / "out", tmp_path / "published")
    again = replace(row, cost=Cost(1e6))  # the same run, on another machine
    keep(outcome_of([again], (), read), tmp_path / "out", tmp_path / "published")
    assert seen[0] == seen[1]


def test_a_run_that_diverged_counts_in_no_column():
    done = finished(Recipe(seed=0), 0.5)
    gone = replace(finished(Recipe(seed=1), 0.5), status="diverged")
    for which in ("last", "best_on_test"):
        found = scores({Case("a", 0): done, Case("a", 1): gone}, "recall@1", which)
        assert set(found["a"]) == {0}


def test_a_recipe_of_many_digits_is_published_whole_so_that_its_row_is_found():
    row = finished(Recipe(head_power=2 / 3, epochs=1), 1 / 3)
    shown = published(row)
    assert isinstance(shown, Row)
    assert shown.recipe == row.recipe
    assert shown.recipe.hash == row.hash
    assert (shown.metrics.last or {})["recall@1"] == 0.333333
