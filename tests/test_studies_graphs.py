"""The studies of the graph lab ask what they say, beside fair controls, and read rows right."""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from finished import cells, figures, finished, validated, watched, with_last
from nearkin import graphs
from nearkin.answers import Answer
from nearkin.losses import make
from nearkin.names import look_up
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Files, Measurement, Row
from nearkin.studies import STUDIES
from nearkin.studies.graphlab import attention, edges, gain, graph, rank_collapse
from nearkin.studies.shared import graph_report
from nearkin.studies.shared.sets import CARS
from nearkin.studies.study import Case

ASKED = ["attention", "edges", "graph", "graph-gain"]


def done(recipe: Recipe, recall: float, **monitor: float) -> Row:
    """The row of a finished run with this R@1, and this report of the loss in three epochs."""
    row = with_last(finished(recipe, recall), **{"map@r": recall / 3, "nmi": recall / 2})
    return watched(row, monitor, epochs=(1, 2, 3))


def study_of(name: str) -> Any:
    """A study by its name, as one calls its functions."""
    return look_up(name, STUDIES, "study")


def rows_of(name: str, recall, **monitor: float) -> dict[Case, Row]:
    """Two seeds of every recipe of a study; recall(recipe) in the mean, a little apart by seed."""
    asked = study_of(name).recipes(seeds=2, tune=False, start="orthogonal")
    return {c: done(r, recall(r) + 0.001 * r.seed, **monitor) for c, r in asked.items()}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("data", ["", CARS, "omniglot", "mnist-5k"])
def test_every_recipe_is_asked_for_once_and_can_be_built(name, data):
    asked = study_of(name).recipes(**({"data": data} if data else {})).values()
    assert len({r.hash for r in asked}) == len(asked)
    assert {r.seed for r in asked} == set(range(5))
    assert not any(r.validate for r in asked)
    for loss, options in {(r.loss, tuple(r.loss_options.items())) for r in asked}:
        make(loss, dict(options), classes=10, dim=16)


@pytest.mark.parametrize("name", ASKED)
def test_the_search_holds_classes_back_and_can_be_left_out(name):
    study = study_of(name)
    assert all(r.trial for r in study.search().values())
    assert study.search(tune=False) == {}


@pytest.mark.parametrize(
    ("name", "methods"),
    [("attention", attention.METHODS), ("edges", edges.METHODS), ("graph", graph.METHODS)],
)
def test_every_method_is_a_case_of_every_seed_and_what_is_not_trained_of_one(name, methods):
    cases = study_of(name).recipes(seeds=2, start="orthogonal")
    trained = [method for method in methods if method != "no training"]
    assert list(cases) == [Case(m) for m in methods] + [Case(m, 1) for m in trained]


def test_the_gain_s_cases_name_the_kind_of_batch():
    cases = gain.recipes(seeds=1, start="orthogonal")
    for sampler in gain.SAMPLERS:
        asked = {case.method: cases[case] for case in cases if case["sampler"] == sampler}
        assert asked.keys() == gain.methods(sampler).keys()
        assert {recipe.sampler for recipe in asked.values()} == {sampler}


@pytest.mark.parametrize("name", ASKED)
def test_answers_without_rows_and_with_one_seed(name):
    study = study_of(name)
    assert isinstance(study.answer({}), Answer)
    rows = {case: done(recipe, 0.5) for case, recipe in study.recipes(seeds=1).items()}
    assert all(len(table.rows) > 3 for table in study.answer(rows).tables)


@pytest.mark.parametrize("name", ASKED)
def test_all_graph_refinement_runs_under_the_setting_that_is_best_for_the_judges_together(name):
    """GAT alone would choose another one, and so would the losses without a graph."""
    searched = {}
    for case, trial in study_of(name).search(start="orthogonal").items():
        own = trial.loss != "graph-refinement" or trial.loss_options.get("layer") == "gat"
        score = 0.6 if trial.lr == (3e-4 if own else 1e-3) else 0.5
        searched[case] = validated(done(trial, score), {4: score})
    asked = study_of(name).recipes(seeds=1, searched=searched, start="orthogonal").values()
    for recipe in asked:
        if not recipe.epochs:
            continue
        lone = recipe.loss == "group" or recipe.loss == "cross-entropy"
        assert recipe.lr == (3e-4 if lone else 1e-3)
        assert recipe.epochs == 4


@pytest.mark.parametrize("data", [CARS, "omniglot"])
def test_every_fold_of_the_classes_judges_each_setting_equally_often(data):
    tried = graph_report.search({}, data, start="orthogonal").values()
    seen = Counter((t.lr, t.loss_lr, t.seed) for t in tried)
    assert len(seen) == 6 * 5
    assert set(seen.values()) == {2}


def test_attention_compares_layers_and_their_parts():
    def recall(recipe: Recipe) -> float:
        lost = 0.1 if recipe.loss_options.get("without") == "residual" else 0.0
        return 0.5 + 0.02 * (recipe.loss_options.get("layer") == "gatv2") - lost

    seen = {"attention_within": 0.2, "attention_across": 0.7, "degree": 9.0, "kin_heard": 1 / 9}
    rows = rows_of("attention", recall, **seen)
    found = attention.answer(rows)
    standings, whole, parts = found.tables
    assert cells(standings, "GATv2")["rank"] == "1–2"  # as is its paper's form
    assert cells(whole, "GATv2")["to dot-product"].mean == pytest.approx(0.02)
    assert cells(whole, "GAT")["to dot-product"].mean == pytest.approx(0)
    assert cells(whole, "dot-product")["p"] == ""
    assert cells(whole, "cross-entropy")["parameters of the loss, M"] == 2
    assert cells(parts, "GATv2 without residual")["to the whole"].mean == pytest.approx(-0.1)
    text = " ".join(map(str, found.findings))
    assert (
        "Where one part of GAT is left out, R@1 surely changes for residual, −10.0 points" in text
    )
    assert "Surely better than the dot product in R@1 are GATv2, +2.0 points (p < 0.001)" in text
    assert found.summary[0] == "Against the dot product, GATv2 is better; GAT cannot be told apart."
    lines = {line.name: line.y for line in figures(found)[2].lines}
    assert len(lines) == 6
    assert lines["GAT, within classes"] == pytest.approx((2.0,) * 3)  # 0.2, equal: 1 of 10
    assert lines["GAT, across classes"] == pytest.approx((0.875,) * 3)  # 0.7, equal: 8 of 10


def test_graphs_stand_beside_the_full_one_and_their_random_control():
    def recall(recipe: Recipe) -> float:
        builder = str(recipe.loss_options.get("builder"))
        return {"knn": 0.53, "random": 0.51}.get(builder, 0.5)

    rows = rows_of("graph", recall, degree=8.0, kin_heard=0.25)
    found = graph.answer(rows)
    eight = cells(found.tables[1], "8 nearest")
    assert eight["to full"].mean == pytest.approx(0.03)
    assert eight["to random"].mean == pytest.approx(0.02)
    assert eight["neighbours"] == 8
    assert eight["kin among them"].mean == pytest.approx(0.25)
    assert cells(found.tables[1], "full")["to random"] is None
    assert [line.name for line in figures(found)[1].lines] == ["nearest", "at random"]


def test_every_random_graph_names_the_degree_of_the_graph_that_it_controls():
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))

    def degree(change) -> torch.Tensor:
        loss: Any = make("graph-refinement", change["loss_options"], classes=4, dim=8)
        return loss.refiner.graph(x, torch.arange(60) % 4).matrix().sum(1)

    assert graph.RANDOM.keys() == graph.GRAPHS.keys() - {graph.FULL, "no edges"}
    for name, control in graph.RANDOM.items():
        assert (degree(control) == degree(graph.GRAPHS[name])).all()


def test_edges_stand_beside_none_and_beside_themselves_untaught():
    def recall(recipe: Recipe) -> float:
        gate = recipe.loss_options.get("edges") == "gate"
        return 0.5 + 0.02 * gate + 0.05 * bool(recipe.loss_options.get("edge_loss"))

    table = edges.answer(rows_of("edges", recall)).tables[1]
    taught = cells(table, "gate of the message, edge loss")
    assert taught["to none"].mean == pytest.approx(0.07)
    assert taught["to no edge loss"].mean == pytest.approx(0.05)
    assert cells(table, "graph network, 3 updates")["to no edge loss"] is None


def test_the_gain_is_over_each_control_with_the_same_batches():
    def recall(recipe: Recipe) -> float:
        options = recipe.loss_options
        alone = 0.0 if options.get("refined") == 0 else 0.02
        edges = 0.0 if alone == 0 or options.get("layer") == "no-edges" else 0.03
        return 0.5 + alone + edges + 0.1 * (recipe.sampler == "classes")

    table = gain.answer(rows_of("graph-gain", recall)).tables[1]
    for batches in ("P x K", "random"):
        full = cells(table, "attention, full graph", batches)
        assert full["over the auxiliary loss"].mean == pytest.approx(0.05)
        assert full["over no edges"].mean == pytest.approx(0.03)
    full = cells(table, "attention, full graph", "P x K")
    assert full["over random batches"].mean == pytest.approx(0.1)
    assert cells(table, "auxiliary loss alone", "random")["over random batches"] is None


def refiner(builder, without: tuple[str, ...] = ()) -> graphs.Refiner:
    torch.manual_seed(0)
    layers = graphs.make_layers("dot-product", 4, dim=8, without=without)
    return graphs.Refiner(builder, layers).double().eval()


def test_residuals_by_their_definition():
    x = torch.randn(12, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    x[6:] += 30  # far from the others: two components
    x[:6, 0] -= 30
    network = refiner(partial(graphs.knn, k=2, symmetry="union"))
    found = rank_collapse.relative_residuals(network, x)
    reached = graphs.knn(x, k=2, symmetry="union").double().matrix_power(12) > 0
    assert not reached.all()
    for state, value in zip([x, *network.refine(x).nodes], found, strict=True):
        rest = torch.stack(
            [row - state[near].mean(0) for row, near in zip(state, reached, strict=True)]
        )

        def norm(m):
            columns = max(sum(abs(v) for v in column) for column in m.T.tolist())
            rows = max(sum(abs(v) for v in row) for row in m.tolist())
            return (columns * rows) ** 0.5

        assert value == pytest.approx(norm(rest) / norm(state))


def test_attention_alone_collapses_and_the_residual_prevents_it():
    x = torch.randn(20, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    alone = rank_collapse.relative_residuals(
        refiner(graphs.full, ("residual", "feedforward", "norms")), x
    )
    kept = rank_collapse.relative_residuals(refiner(graphs.full, ("feedforward", "norms")), x)
    assert alone[-1] < 1e-6
    assert kept[-1] > 1e-2


def test_rank_collapse_is_answered_from_its_rows():
    rows = {}
    for case in rank_collapse.measure(seeds=2):
        residuals = [1.0, *(10.0 ** (-d - 2 * case.seed) for d in range(8))]
        rows[case] = Measurement("a", {"untrained": residuals, "trained": [1.0] * 9})
    found = rank_collapse.answer(rows)
    row = cells(found.tables[0], "full", "attention alone")
    assert (row["untrained, 1"], row["untrained, 8"], row["trained, 8"]) == ("0.1", "1e−8", "1")
    graphs = len(rank_collapse.GRAPHS)
    assert [len(figure.lines) for figure in figures(found)] == [4, 4, graphs, graphs]
    assert isinstance(rank_collapse.answer({}), Answer)


def test_a_picture_of_a_method_is_that_of_its_first_seed_that_kept_one():
    rows = rows_of("graph", lambda _: 0.5)
    files = Files("runs", attention="attention.npz")
    for seed in (0, 1):
        case = Case("4 nearest", seed)
        rows[case] = replace(rows[case], files=files if seed else Files("runs"))
    drawn = graph_report.batch_graphs(rows, ["no edges", "4 nearest"], "who")
    assert drawn.rows == (("4 nearest", rows[Case("4 nearest", 1)]),)
