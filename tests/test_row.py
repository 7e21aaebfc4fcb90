"""A row is what was run, typed: written as JSON by hand readable, read strictly, old ones too."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from finished import finished, validated, watched
from nearkin.data.terms import may_show
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import (
    SCHEMA,
    Cost,
    Data,
    Files,
    Machine,
    Measurement,
    Metrics,
    Row,
    from_json,
    to_json,
)
from nearkin.runs.store import Store

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECIPE = Recipe(loss="n-pair", loss_options={"l2": 0.1}, dim=2, seed=3)


def full() -> Row:
    """A row with a value in every field that is not the field's default."""
    last = {"epoch": 4, "recall@1": 0.5, "map@r": 0.25}
    row = validated(watched(finished(RECIPE, 0.5), {"active": 0.5}), {1: 0.25, 4: 0.5})
    return replace(
        row,
        metrics=Metrics(last, last, last, {**last, "graph": "8 nearest"}),
        data=Data("x", "28 px", "f00d", 2, True, True, 10, 2, 8, 8, 2),
        study="toolkit",
        own_object="loss",
        metric="euclidean",
        by_class={"queries": (4.0, 4.0), "recall@1": (0.75, 0.25), "map@r": (0.5, 0.0)},
        confusion=((3, 1), (0, 4)),
        cost=Cost(2.0, 1.0, 50.5, 300, 1000, 10),
        versions={"torch": "2.9"},
        metric_versions={"nmi": 2},
        machine=Machine("abacus", 2, "none", "Linux"),
        files=Files(f"runs/{RECIPE.hash}", "embeddings.npz", "attention.npz"),
    )


MEASURED = Measurement("a1", {"seconds": [1, 2.5]}, Data("x"), "cost", cost=Cost(3.0))


@pytest.mark.parametrize("stored", [full(), finished(RECIPE, 0.5), MEASURED])
def test_what_is_written_is_read_again(stored):
    written = json.loads(json.dumps(to_json(stored), allow_nan=False))
    assert from_json(written) == stored
    assert written["schema"] == SCHEMA
    assert written.keys() - {"schema"} == {field.name for field in fields(stored)}


def test_the_places_that_others_read_are_kept():
    written = json.loads(json.dumps(to_json(full())))
    assert written["hash"] == RECIPE.hash
    assert Recipe(**written["recipe"]) == RECIPE
    assert written["metrics"]["last"]["recall@1"] == 0.5
    assert written["epochs"][-1] == {
        "epoch": 4,
        "steps": 0,
        "seconds": 0.0,
        "loss": None,
        "validation": {"recall@1": 0.5},
    }
    assert written["machine"] == {"cpu": "abacus", "cores": 2, "gpu": "none", "system": "Linux"}


def test_a_row_is_read_by_subscription_as_its_json_is():
    row = full()
    assert {**row} == to_json(row)
    assert row["metrics"]["last"]["recall@1"] == 0.5
    row["metrics"]["last"]["recall@1"] = 1.0  # of a copy
    assert row.metrics.last == {"epoch": 4, "recall@1": 0.5, "map@r": 0.25}
    with pytest.raises(TypeError):
        row["hash"] = "another"  # type: ignore[index]


def without(part: str, *more: str) -> dict:
    """The JSON form of a row without a part of it, or without a part of that."""
    raw = to_json(full())
    inner = raw
    for name in (part, *more)[:-1]:
        inner = inner[name]
    del inner[(part, *more)[-1]]
    return raw


def with_value(value, *place: str) -> dict:
    """The JSON form of a row with this value in some place."""
    raw = to_json(full())
    inner = raw
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (5, "wanted a row, got 5"),
        ([1], r"wanted a row, got \[1\]"),
        (without("hash"), "row: hash missing"),
        (without("recipe"), "row: recipe missing"),
        (without("metrics"), "row: metrics missing"),
        (without("metrics", "last"), "metrics: last missing"),
        (without("data", "name"), "data: name missing"),
        (with_value(None, "metrics"), "metrics: wanted dict, got None"),
        (with_value({}, "metrics", "last"), "row: metrics: last holds no recall@1"),
        (
            with_value("high", "metrics", "last", "recall@1"),
            "metrics: last: recall@1: wanted float",
        ),
        (with_value(3, "epochs"), "epochs: wanted list, got 3"),
        (with_value([3], "epochs"), "epochs: wanted dict, got 3"),
        (with_value([{"epoch": True}], "epochs"), "epochs: epoch: wanted int, got True"),
        (with_value(3, "files"), "files: wanted dict, got 3"),
        (with_value(None, "cost"), "cost: wanted dict, got None"),
        (with_value("long", "cost", "seconds"), "cost: seconds: wanted float or nothing"),
        (with_value([1], "versions"), r"versions: wanted dict, got \[1\]"),
        (with_value("x", "machine"), "machine: wanted dict, got 'x'"),
        (with_value("ended", "status"), "status must be done or diverged, got 'ended'"),
        (with_value(1, "recipe", "new"), "unknown field of recipe 'new': did you mean"),
        (with_value(0, "recipe", "dim"), "recipe: dim must be 1 or more, got 0"),
        (with_value(1, "colour"), "unknown part of row 'colour': did you mean"),
        (with_value(1, "data", "colour"), "unknown part of data 'colour': did you mean"),
        (with_value(SCHEMA + 1, "schema"), f"schema {SCHEMA} or below, got schema {SCHEMA + 1}"),
        (with_value("two", "schema"), "got schema 'two'"),
        (with_value("../../secret", "files", "folder"), "folder must lie within the store's"),
        (with_value("/secret", "files", "folder"), "folder must lie within the store's"),
        (with_value("../x", "hash"), "wanted a hash, which names a folder, got '../x'"),
    ],
)
def test_what_is_missing_or_unknown_is_one_line(raw, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        from_json(raw)
    assert "\n" not in str(error.value)
    (tmp_path / "rows.jsonl").write_text(json.dumps(raw) + "\n")
    with pytest.raises(ValueError, match=f"rows.jsonl: line 1 is not a row: .*{message}"):
        Store(tmp_path).rows()


def old(row: Row) -> dict:
    """A row as it was written before rows had schema numbers: its flags in words."""
    raw = to_json(row)
    for name in ("schema", "own_object", "metric_versions"):
        del raw[name]
    for name in ("fingerprint", "left_out", "showable"):
        del raw["data"][name]
    return raw


def test_rows_without_a_schema_number_have_their_flags_from_words():
    row = finished(replace(RECIPE, data="mnist"), 0.5)
    assert from_json(old(row)) == replace(row, data=replace(row.data, showable=True))
    birds = Data("cub", "full frames; bad pictures left out: 3")
    read = from_json(old(replace(row, data=birds)))
    assert read.data == replace(birds, left_out=3)


def test_a_row_by_hand_needs_its_recipe_and_metrics_alone():
    raw = {
        "hash": "by-hand",
        "recipe": {"loss": "n-pair"},
        "metrics": {"last": {"recall@1": 1}},
    }
    row = from_json(raw)
    assert isinstance(row, Row)
    assert row.recipe == Recipe(loss="n-pair")
    assert (row.status, row.data.name, row.epochs) == ("done", "mnist-5k", ())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_published_row_is_read(path):
    stored = Store(path.parent, path.name).stored()
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    for one, read in zip(raw, stored.values(), strict=True):
        if isinstance(read, Row):
            assert read["metrics"] == one["metrics"]
            assert read["epochs"] == [
                {k: v for k, v in epoch.items() if v is not None or k == "loss"}
                for epoch in one["epochs"]
            ]
            assert read.data.showable == may_show(one["data"]["name"])
        else:
            assert set(read.values) <= {*one, *one.get("values", {})}
