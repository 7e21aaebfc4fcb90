"""What a page says from rows alone: methods, three numbers, their bias, curves, commands."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from finished import finished, with_last
from nearkin.answers import Answer, Line, Lines
from nearkin.app.main import COMMANDS
from nearkin.app.parse import parse
from nearkin.measure.statistics import Estimate, estimate
from nearkin.report import single_runs, standard, write_markdown
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Row
from nearkin.studies.shared.methods import without_training
from nearkin.studies.shared.reading import headline
from nearkin.studies.study import Case
from reported import make_row, make_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[Case, Row]:
    store: Path = tmp_path_factory.mktemp("store")
    return make_rows(store)


def test_runs_stand_under_the_labels_of_their_cases_each_once(rows):
    labels = {"contrastive, dim 2": 3, "n-pair, dim 2": 3, "n-pair, dim 5": 4}
    assert {name: len(group) for name, group in standard.labelled(rows).items()} == labels
    again = rows | {Case("the same", 0): rows[Case("n-pair", dim=2)]}
    assert standard.labelled(again).keys() == labels.keys()
    assert dict(standard.facts(again.values()))["time"] == ["10 runs, 2 min 5 s in all"]


def test_single_runs_are_named_by_as_little_as_tells_them_apart(rows):
    named = single_runs.methods([*rows.values()])
    assert {name: len(group) for name, group in named.items()} == {
        "contrastive, dim 2": 3,
        "n-pair, dim 2": 3,
        "n-pair, dim 5": 4,
    }
    assert list(single_runs.methods([*rows.values()][:3])) == ["contrastive"]


def test_a_single_run_that_trained_nothing_has_no_loss_in_its_name(tmp_path):
    features = Recipe(data="features:x.npz", backbone="linear")
    whitened = replace(features, epochs=0, head_start="whitened")
    made = [make_row(r, tmp_path, keep=False) for r in (whitened, features)]
    names = list(single_runs.methods(made))
    assert names == ["untrained, whitened", features.loss]
    plain = make_row(without_training(features, 0), tmp_path, keep=False)
    assert list(single_runs.methods([plain, *made])) == ["no training", *names]


def test_a_single_run_that_starts_from_another_is_named_by_it(tmp_path):
    """So that seeds, which each start from a run of their own, are one method."""
    kinds = [Recipe(loss=loss, seed=seed) for loss in ("n-pair", "triplet") for seed in (0, 1)]
    alone = [replace(r, data="omniglot") for r in kinds]
    after = [replace(r, start=first.hash) for r, first in zip(alone, kinds, strict=True)]
    made = [make_row(r, tmp_path, keep=False) for r in (*after, *alone, *kinds)]
    named = single_runs.methods(made)
    assert [len(group) for group in named.values()] == [2] * 6
    assert named["n-pair, data omniglot, start (n-pair)"] == made[:2]
    assert named["n-pair, data omniglot"] == made[4:6]

    gone = single_runs.methods(made[:4])  # what they started from is not among these rows
    assert [len(group) for group in gone.values()] == [1] * 4


@pytest.mark.parametrize("changes", [{"miner": "spanning-tree"}, {"sampler": "streams"}, {}])
def test_single_runs_after_a_paper_whose_loss_is_unknown_tell_so(changes):
    made = single_runs.outcome([finished(Recipe(**changes), 0.5)])
    remarks = " ".join(made.answer.remarks)
    assert ("its loss is not known to us" in remarks) == bool(changes)


def test_two_single_runs_of_one_recipe_on_different_data_are_two():
    row = finished(Recipe(), 0.5)
    other = replace(row, data=replace(row.data, fingerprint="f00d"))
    assert len(single_runs.outcome([row, other]).rows) == 2


def test_single_runs_are_compared_on_one_data_set_only(tmp_path):
    """And stand beside no training, where a run of no epochs is among them."""
    asked = [
        Recipe(loss=loss, data=data, seed=seed, epochs=epochs)
        for data in ("mnist-5k", "omniglot")
        for loss, epochs in (("n-pair", 4), ("triplet", 4), ("contrastive", 0))
        for seed in range(3 if epochs else 1)
    ]
    level = {("n-pair", "mnist-5k"): 0.9, ("triplet", "mnist-5k"): 0.8, ("n-pair", "omniglot"): 0.3}
    made = [
        finished(r, level.get((r.loss, r.data), 0.5) + 0.01 * r.seed if r.epochs else 0.4)
        for r in asked
    ]
    made = [replace(row, data=replace(row.data, name=row.recipe.data)) for row in made]
    found = single_runs.outcome(made).answer
    assert found.summary[0].startswith("On mnist-5k, n-pair, data mnist-5k is best")
    assert found.summary[1].startswith("On omniglot, triplet, data omniglot is best")
    standings = found.tables[0]
    assert standings.columns[1:] == (
        *("mnist-5k R@1", "rank, mnist-5k"),
        *("omniglot R@1", "rank, omniglot"),
    )
    assert standings.above == 4
    assert len(standings.rows) == 6
    one = single_runs.outcome([row for row in made if row.data.name == "omniglot"]).answer
    assert one.summary[1].endswith("which has 40.0 %.")
    assert [type(figure).__name__ for figure in one.figures] == ["Dots", "Maps", "Gallery"]


def test_the_time_is_told_of_rows_that_know_it(rows):
    assert dict(standard.facts(rows.values()))["time"] == ["10 runs, 2 min 5 s in all"]
    unknown = [replace(row, cost=Cost()) for row in rows.values()]
    assert dict(standard.facts(unknown))["time"] == ["10 runs"]


def test_the_bias_is_best_on_test_less_the_last_epoch(rows):
    table = standard.selection([*rows.values()], standard.labelled(rows))
    line = dict(zip(table.columns, table.rows[2], strict=True))
    assert (line["runs"], line["diverged"]) == (4, 1)
    assert line["last epoch"] == estimate([0.5, 0.51, 0.52])
    assert line["validated epoch"] == estimate([0.49] * 3)
    assert isinstance(line["bias"], Estimate)
    assert line["bias"].mean == pytest.approx(0.02)


def test_curves_are_means_over_seeds(rows):
    curves = standard.curves([*rows.values()], standard.labelled(rows))
    assert curves is not None
    assert [line.name for line in curves.lines] == list(standard.labelled(rows))
    assert curves.lines[0].x == (1, 2, 3)
    assert curves.lines[0].y == pytest.approx((0.38, 0.45, 0.52))
    assert all(low < y for low, y in zip(curves.lines[0].low, curves.lines[0].y, strict=True))


def test_a_study_that_draws_its_own_curves_gets_no_others(rows, tmp_path):
    own = Lines("Own", "epoch", "R@1", (Line("a", (1, 2, 3), (0.1, 0.2, 0.3)),))
    path = write_markdown(Answer("t", "q", figures=(own,)), rows, tmp_path, tmp_path)
    assert path.read_text().count("![") == 1


def test_accuracy_speaks_where_every_run_has_it(rows):
    assert headline(rows.values()).name == "R@1"
    row = with_last(finished(Recipe(), 0.8), knn_accuracy=0.9)
    assert headline([row]).name == "5-NN accuracy"


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(data="folder:/a b/c", loss="n-pair", loss_options={"l2": 0.1, "form": "printed"}),
        Recipe(validate=True, lr=3e-5, epochs=7, backbone_options={"live": True, "name": "1"}),
    ],
)
def test_the_command_of_a_row_asks_for_its_recipe(recipe):
    words = shlex.split(standard.command(recipe))
    act = parse(words[1:], COMMANDS)
    asked = [*act.args, *act.keywords.values()]  # type: ignore[attr-defined]
    assert recipe in asked
