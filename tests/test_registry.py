"""Every name of the registries stands for something, one's own in worker processes too."""

import sys

import numpy as np
import pytest

from nearkin import registry
from nearkin.names import look_up, resolve
from nearkin.runs.engine import Place
from nearkin.runs.executors import complete
from nearkin.runs.recipe import Recipe

ENTRIES = [(name, key) for name, table in registry.tables().items() for key in table]
OWN = """
import nearkin.models.features
from nearkin.data.sets.features import features as read


def backbone(input_shape, dim):
    return nearkin.models.features.linear(input_shape, dim)


def dataset(request):
    from dataclasses import replace
    from pathlib import Path

    return read(replace(request, root=Path(__file__).parent / "points.npz"))
"""


@pytest.mark.parametrize(("table", "key"), ENTRIES)
def test_every_entry_stands_for_something(table, key):
    found = look_up(key, registry.tables()[table], "entry")
    assert table == "PRECISIONS" or not isinstance(found, str)


def test_an_entry_that_stands_for_nothing_says_what_is_missing():
    with pytest.raises(ValueError, match="there is no module nowhere"):
        resolve("nowhere.at_all:Name")
    with pytest.raises(ValueError, match=r"there is no module json\.nowhere"):
        resolve("json.nowhere:Name")
    with pytest.raises(ValueError, match=r"json has no dump5: did you mean dump\?"):
        resolve("json:dump5")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of one's own with a backbone and a data set, and registries to put them in."""
    random, y = np.random.default_rng(0), np.repeat(np.arange(8), 6)
    np.savez(tmp_path / "points.npz", x=random.normal(size=(8, 5))[y], y=y)
    (tmp_path / "my_own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for table in (registry.BACKBONES, registry.DATASETS):
        monkeypatch.setitem(table, "mine", "")
        del table["mine"]
    yield Recipe(data="mine", backbone="mine", dim=3, epochs=1, batch=12, per_class=3)
    sys.modules.pop("my_own_parts", None)


@pytest.mark.parametrize("jobs", [1, 2])
def test_own_entries_by_string_serve_in_workers_too(own, tmp_path, jobs):
    registry.BACKBONES["mine"] = "my_own_parts:backbone"
    registry.DATASETS["mine"] = "my_own_parts:dataset"
    rows = complete([own, Recipe(**{**vars(own), "seed": 1})], tmp_path / "out", jobs=jobs)
    assert [row["status"] for row in rows] == ["done", "done"]


def test_own_objects_serve_in_one_process_and_are_refused_to_workers(own, tmp_path):
    import my_own_parts  # type: ignore[import-not-found]

    registry.BACKBONES["mine"] = my_own_parts.backbone
    registry.DATASETS["mine"] = my_own_parts.dataset
    with pytest.raises(ValueError, match=r"'mine'\] is an object.*wanted \"module:Name\""):
        complete([own], tmp_path / "out", jobs=2, place=Place(device="cpu"))
    assert not (tmp_path / "out").exists()
    (row,) = complete([own], tmp_path / "out", place=Place(device="cpu"))
    assert row["status"] == "done"
