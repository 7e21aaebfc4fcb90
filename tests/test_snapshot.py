"""Claim: a search reads the snapshot where it is of the table as it stands, and never otherwise."""

import subprocess
import sys

import numpy as np
import pytest

import nearkin as nk
from nearkin.search import snapshot
from nearkin.search.index import Index
from nearkin.search.snapshot import NAME, read_snapshot
from test_index import COLOURS, folder, model, photograph, shop  # noqa: F401 - fixtures


def by(index: Index, **options) -> list:
    return index.search(np.eye(6, dtype=np.float32), k=20, **options)


def test_answers_are_those_of_the_table(shop):  # noqa: F811
    plain = Index(shop.path)
    assert shop.write_snapshot()
    quick = Index(shop.path)
    assert quick._store is None
    assert by(quick) == by(plain)
    assert by(quick, label="green") == by(plain, label="green")
    assert by(quick, rerank=True) == by(plain, rerank=True)
    assert quick._store is None  # nothing has opened the table
    assert quick.labels() == plain.labels()


@pytest.mark.parametrize("change", ["add", "remove", "relabel", "optimize"])
def test_another_state_of_the_table_is_seen(shop, tmp_path, change):  # noqa: F811
    shop.write_snapshot()
    early, other = Index(shop.path), Index(shop.path)
    assert by(early)
    if change == "add":
        photograph(tmp_path / "more" / "x.png", COLOURS["blue"], 70)
        other.add(tmp_path / "more", label="new")
    elif change == "remove":
        other.remove(label="red")
    elif change == "optimize":
        other.store.tidy()
    else:
        path = other.vectors()[0][0]
        (tmp_path / "d.csv").write_text(f"path,class,action\n{path},else,relabel\n")
        other.decide(tmp_path / "d.csv")
    fresh = Index(shop.path)
    assert fresh._store is not None or change == "optimize"
    wanted = {hit for answer in by(Index(shop.path, other.store)) for hit in answer.hits}
    for index in (early, fresh):
        assert {hit for answer in by(index) for hit in answer.hits} == wanted
    assert other.write_snapshot()
    assert Index(shop.path)._store is None


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_not_read(shop, kept):  # noqa: F811
    plain = by(shop)
    shop.write_snapshot()
    path = shop.path / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    assert read_snapshot(shop.path) is None
    assert by(Index(shop.path)) == plain


def test_a_large_index_has_none(shop, monkeypatch):  # noqa: F811
    assert shop.write_snapshot()
    monkeypatch.setattr(snapshot, "MOST", 14)
    assert not shop.write_snapshot()
    assert not (shop.path / NAME).exists()


def test_one_that_is_changed_meanwhile_is_not_written(shop, folder, monkeypatch):  # noqa: F811
    states = iter(["before", "after"])
    monkeypatch.setattr(snapshot, "state_of", lambda folder: next(states))
    assert not shop.write_snapshot()


SHELL = """
import sys
from nearkin.search.index import Index
index = Index(sys.argv[1])
import numpy as np
print(index.search(np.eye(6, dtype=np.float32)[:1], k=1)[0].hits[0].path)
print(*sorted({"lancedb", "torch"} & {*sys.modules}))
"""


def test_a_search_imports_no_database(shop):  # noqa: F811
    shop.write_snapshot()
    words = [sys.executable, "-c", SHELL, str(shop.path)]
    path, large = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[:2]
    assert path == by(shop)[0].hits[0].path
    assert large == ""


def test_the_command_writes_it(tmp_path, folder, monkeypatch):  # noqa: F811
    from nearkin.app.main import main

    monkeypatch.setattr(Index, "write_light", lambda index: False)
    model().save(tmp_path / "grocery")
    main(["index", str(tmp_path / "grocery"), str(folder), "--output", str(tmp_path / "made")])
    assert Index(tmp_path / "made")._store is None
    main(["index", str(tmp_path / "made"), "--remove", "label=red"])
    assert Index(tmp_path / "made")._store is None
    assert nk.Index(tmp_path / "made").labels() == {"green": 5, "blue": 5}
