"""Transfer asks for every protocol of every pair, does as it says, and tells what is lost."""

from unittest.mock import ANY

import numpy as np
import pytest
import torch

from finished import cells, figures, finished, rows_of
from nearkin import losses
from nearkin.data import load
from nearkin.models.model import Model
from nearkin.runs.engine import Place
from nearkin.runs.executors import complete, waves
from nearkin.studies.photographs import transfer
from nearkin.studies.photographs.transfer import (
    AFTER_SOURCE,
    FROZEN,
    TARGET,
    TUNED,
    UNTRAINED,
    ZERO_SHOT,
)
from nearkin.studies.shared import sets
from nearkin.studies.shared.methods import METHODS, picked
from nearkin.studies.shared.words import shortened
from nearkin.studies.study import Case

DATA = "features:a_lite0.npz,features:b_lite0.npz,features:c_lite0.npz"


@pytest.fixture(scope="module")
def asked():
    return transfer.recipes(data=DATA, seeds=2, methods="contrastive,ProxyGML", start="orthogonal")


def test_every_protocol_of_every_pair_is_asked_for_once(asked):
    # per method and seed: 3 data sets, 6 pairs x 3 protocols; and each data set without training
    assert len({r.hash for r in asked.values()}) == len(asked) == 2 * 2 * (3 + 6 * 3) + 3
    by_hash = {r.hash: (case, r) for case, r in asked.items()}
    for case, recipe in asked.items():
        if recipe.start:
            source, made_by = by_hash[recipe.start]
            assert not made_by.start
            assert source == Case(case.method, case.seed, protocol=TARGET, target=case["source"])
            assert (made_by.loss, made_by.seed) == (recipe.loss, recipe.seed)
            assert case["source"] != case["target"]
    started = [r for r in asked.values() if r.start]
    assert sum(r.freeze for r in started) == sum(not r.epochs for r in started) == len(started) / 3


def test_sources_are_run_before_what_starts_from_them(asked):
    first, second = waves(list(asked.values())[::-1])
    assert not any(r.start for r in first)
    assert all(r.start for r in second)


def test_settings_come_from_the_search():
    given: dict = {"data": DATA, "methods": "ProxyGML", "start": "orthogonal"}
    tried = transfer.search(**given)
    assert len(tried) == 3 * 12
    assert all(r.trial for r in tried.values())
    rows = rows_of(tried, lambda r: finished(r, 0.7 if r.lr == 1e-3 and r.loss_lr == 0.01 else 0.5))
    asked = transfer.recipes(seeds=1, searched=rows, **given).values()
    assert {(r.lr, r.loss_lr) for r in asked if r.epochs} == {(1e-3, 0.01)}
    assert transfer.search(data=DATA, tune=False) == {}


def test_one_data_set_has_nowhere_to_go():
    with pytest.raises(ValueError, match="two different data sets or more"):
        transfer.recipes(data="cub")
    with pytest.raises(ValueError, match="between features, or between pictures"):
        transfer.recipes(data=f"folder:a,{DATA}")
    with pytest.raises(ValueError, match="did you mean 'ProxyGML'"):
        transfer.recipes(data=DATA, methods="ProxyGLM")


def test_features_as_they_are_lose_nothing_to_half_precision(asked):
    assert {r.precision for r in asked.values() if not r.epochs and not r.start} == {"float32"}


def test_pictures_train_a_pretrained_network():
    asked = transfer.recipes(data="cub,omniglot", seeds=1).values()
    assert {r.backbone for r in asked} == {"lite0"}
    bare = [r for r in asked if not r.epochs and not r.start]
    assert [r.backbone_options["head"] for r in bare] == ["none", "none"]


@pytest.mark.parametrize("data", ["features:x.npz", transfer.OMNIGLOT])
def test_every_method_can_be_built(data):
    for (name, _), recipe in transfer.settings(data, 0, "all", "whitened").items():
        losses.make(recipe.loss, recipe.loss_options, classes=60, dim=16)
        assert recipe.loss_options == (sets.fitted(data) if name == "ProxyGML" else ANY)
    assert len(METHODS) == len(picked("all"))


def recall(case: Case) -> float:
    """R@1 that a protocol is given here: 50 % less what source, protocol and seed take from it."""
    if case.method == UNTRAINED:
        return 0.2
    if case["protocol"] == TARGET:
        return 0.5 + 0.01 * case.seed
    left = {FROZEN: 0.3, TUNED: 0.4, ZERO_SHOT: 0.25}[case["protocol"]]
    return left + 0.02 * case.seed + (0.1 if case["source"] == "b" else 0)


def test_the_answer_tells_protocols_sources_and_targets_apart(asked):
    rows = {case: finished(recipe, recall(case)) for case, recipe in asked.items()}
    answer = transfer.answer(rows)
    table = next(t for t in answer.tables if t.title.startswith("b to a"))
    assert table.note.startswith("B: as drawn; a: as drawn. Mean")
    line = cells(table, "ProxyGML")
    assert line[TARGET].mean == pytest.approx(0.505)
    assert line[TUNED].mean == pytest.approx(0.51)
    assert line[FROZEN].mean == pytest.approx(0.41)
    assert line[ZERO_SHOT].mean == pytest.approx(0.36)
    assert line["(1) - (3)"].mean == pytest.approx(0.095)  # 0.5 - 0.4 and 0.51 - 0.42
    assert cells(table, UNTRAINED)[TARGET].mean == pytest.approx(0.2)
    assert len(answer.tables) == 1 + 6
    _, lost, contrastive, proxies = figures(answer)
    assert lost.values[lost.rows.index("b to a")][lost.columns.index("ProxyGML")].mean == (
        pytest.approx(0.095)
    )
    assert (contrastive.columns, proxies.columns) == (("a", "b", "c"),) * 2
    assert proxies.values[proxies.rows.index("(3) frozen from b")][0].mean == pytest.approx(0.41)
    assert proxies.values[proxies.rows.index("(3) frozen from b")][1] is None
    assert len(proxies.rows) == 1 + 3 * len(AFTER_SOURCE)
    texts = list(map(str, answer.findings))
    assert (
        "From a to b, a frozen trunk costs R@1 from 19.5 points (p = 0.016) with contrastive to "
        "19.5 points (p = 0.016) with ProxyGML." in texts
    )
    nothing = (
        "Zero-shot is surely better than no training (95 % intervals) on no pair and by no method."
    )
    assert nothing in texts  # two seeds tell nothing
    several = transfer.recipes(
        data=DATA, seeds=4, methods="contrastive,ProxyGML", start="orthogonal"
    )
    rows = {case: finished(recipe, recall(case)) for case, recipe in several.items()}
    texts = " ".join(map(str, transfer.answer(rows).findings))
    assert "from b to a by contrastive, ProxyGML;" in texts


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["mnist", "fashion-mnist"], ["mnist", "fashion-mnist"]),
        (["features:x_1", "features:y_1"], ["x", "y"]),
        (["features:a_b_1", "features:c_b_1"], ["a", "c"]),
        (["features:a_1", "b_1_1"], ["a", "b_1"]),
        (["cub"], ["cub"]),
        (["features:p/a_1.npz", "features:q/b_1.npz"], ["a", "b"]),
        (["features:p/x.npz", "features:q/x.npz"], ["features:p/x.npz", "features:q/x.npz"]),
    ],
)
def test_names_are_cut_where_they_end_alike(names, short):
    assert list(shortened(names).values()) == short


@pytest.fixture(scope="module", params=["orthogonal", "whitened"])
def carried_out(request, tmp_path_factory):
    """A study of two small files of features, from its recipes to its rows."""
    folder = tmp_path_factory.mktemp("transfer")
    random, size = np.random.default_rng(0), 260 if request.param == "whitened" else 5
    for name, shift in (("a", 0), ("b", 1)):
        y = np.arange(8).repeat(6)
        x = random.random((8, size))[y] + 0.2 * random.random((48, size)) + shift
        np.savez(folder / f"{name}_tiny.npz", x=x.astype("float32"), y=y)
    asked = transfer.recipes(
        data="features:a_tiny.npz,features:b_tiny.npz",
        seeds=1,
        epochs=2,
        methods="contrastive",
        start=request.param,
    )
    return folder, complete(asked, folder, place=Place(root=str(folder)))


def test_it_runs_as_it_says(carried_out):
    folder, rows = carried_out
    answer = transfer.answer(rows)
    assert all(
        value is not None for t in answer.tables for value in cells(t, "contrastive").values()
    )

    def backbone(row):
        return Model.load(folder / "runs" / row.hash).backbone

    by_hash = {row.hash: row for row in rows.values()}
    started = [row for row in rows.values() if row.recipe.start]
    assert len(started) == 2 * 3
    for row in started:
        recipe, own = row.recipe, backbone(row)
        source = backbone(by_hash[recipe.start])
        query = load(recipe.data, folder).query.tensor
        same = torch.equal(own.trunk(query), source.trunk(query))
        assert same == (recipe.freeze or not recipe.epochs)
        assert torch.equal(own(query), source(query)) == (not recipe.epochs)
