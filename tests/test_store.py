"""Rows are stored whole or not at all, whatever happens to the file or to who writes it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from finished import finished
from nearkin.files import write_whole
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.row import Measurement, to_json
from nearkin.runs.store import Store


def row(seed: int) -> Measurement:
    return Measurement(Recipe(seed=seed).hash, {"value": seed})


def values(store: Store) -> list[int]:
    return [one.values["value"] for one in store.stored().values() if isinstance(one, Measurement)]


def test_rows_come_back_in_order_and_once(tmp_path):
    store = Store(tmp_path)
    for seed in (3, 1, 3, 2):
        store.append(row(seed))
    assert values(store) == [3, 1, 2]
    store.append(finished(Recipe(seed=1, dim=8), 0.5))
    assert store.find(Recipe(seed=1, dim=8)) == finished(Recipe(seed=1, dim=8), 0.5)
    assert store.find(Recipe(seed=9)) is None


def test_a_line_that_was_cut_off_is_no_row_and_is_gone_after_the_next(tmp_path):
    store = Store(tmp_path)
    store.append(row(1))
    with open(store.file, "a") as file:
        file.write(json.dumps(to_json(row(2)))[:20])
    assert values(store) == [1]
    store.append(row(3))
    assert values(store) == [1, 3]
    assert len(store.file.read_text().splitlines()) == 2


@pytest.mark.parametrize("line", [b"\xff\xfe", b"5", b'{"hash": "a"}'])
def test_what_is_no_row_is_named_with_its_file(tmp_path, line):
    (tmp_path / "rows.jsonl").write_bytes(line + b"\n")
    with pytest.raises(ValueError, match="rows"):
        Store(tmp_path).rows()


@pytest.mark.parametrize(("name", "value"), [("study", '"x"'), ("seed", "3")])
def test_a_row_that_says_something_twice_is_refused(tmp_path, name, value):
    text = json.dumps(to_json(finished(Recipe(), 0.5)))
    (tmp_path / "rows.jsonl").write_text(text + "\n")
    assert len(Store(tmp_path).rows()) == 1
    (tmp_path / "rows.jsonl").write_text(
        text.replace(f'"{name}"', f'"{name}": {value}, "{name}"') + "\n"
    )
    with pytest.raises(ValueError, match=r"rows\.jsonl.*line 1"):
        Store(tmp_path).rows()


def test_a_text_that_no_file_in_utf_8_can_hold_is_refused(tmp_path):
    """Half of a pair of surrogates: as an escape in JSON, or from a name in another encoding."""
    sound = to_json(finished(Recipe(), 0.5))
    for half in ("\ud800", "\udcff", "x\udfff"):
        lines = [json.dumps({**sound, "study": text}) for text in ("\ud83d\ude00", half)]
        (tmp_path / "rows.jsonl").write_text(lines[0] + "\n")
        assert [stored.study for stored in Store(tmp_path).rows()] == ["\U0001f600"]
        (tmp_path / "rows.jsonl").write_text("\n".join([lines[0], lines[1], ""]))
        with pytest.raises(ValueError, match="line 2"):
            Store(tmp_path).rows()
        with pytest.raises(ValueError, match="UTF-8"):
            Store(tmp_path / half)
        with pytest.raises(ValueError, match="data: wanted text in UTF-8"):
            Recipe(data=f"folder:{half}")
        with pytest.raises(ValueError, match="loss_options: wanted text in UTF-8"):
            Recipe(loss_options={"name": half})


def test_what_is_no_full_disk_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="another matter"):
        write_whole(tmp_path / "file.pt", lambda _: exec("raise RuntimeError('another matter')"))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_had_half_written_is_gone_when_it_goes_on(tmp_path):
    with Store(tmp_path).claim(Recipe().hash) as folder:
        (folder / ".checkpoint.pt.123").write_bytes(b"half")
        (folder / "checkpoint.pt").write_bytes(b"whole")
    with Store(tmp_path).claim(Recipe().hash) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "lease.2"]


FULL = """
import resource, signal, sys
from functools import partial
from pathlib import Path
import torch
from nearkin.files import write_whole
from nearkin.runs.row import Measurement
from nearkin.runs.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    {act}
except OSError as error:
    print(error)
"""
APPEND = 'Store(sys.argv[1]).append(Measurement("long", {"value": "y" * 6000}))'
SAVE = 'write_whole(Path(sys.argv[1]) / "file.pt", partial(torch.save, torch.ones(2000)))'


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_disk_that_fills_up_under_torch_is_named_and_nothing_is_left(tmp_path):
    words = [sys.executable, "-c", FULL.format(act=SAVE), str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True).stdout
    assert said == f"[Errno 27] File too large: '{tmp_path / 'file.pt'}'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_disk_that_fills_up_in_the_middle_of_a_row_leaves_the_rows_before_it(tmp_path):
    store = Store(tmp_path)
    store.append(row(1))
    words = [sys.executable, "-c", FULL.format(act=APPEND), str(tmp_path)]
    assert "File too large" in subprocess.run(words, capture_output=True, text=True).stdout
    assert values(store) == [1]
    store.append(row(2))
    assert values(store) == [1, 2]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    store = Store(tmp_path)
    store.append(row(1))
    store.file.write_text("{broken\n" + store.file.read_text())
    with pytest.raises(ValueError, match=r"rows.jsonl: line 1 is not a row: '\{broken'"):
        store.rows()


def test_nothing_is_left_of_a_row_that_cannot_be_written(tmp_path):
    store = Store(tmp_path)
    store.append(row(1))
    before = store.file.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        store.append(Measurement("x", {"value": float("nan")}))
    assert store.file.read_bytes() == before


def test_many_writers_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: Store(tmp_path).append(row(seed)), range(64)))
    assert sorted(values(Store(tmp_path))) == list(range(64))


def test_the_hash_is_of_what_differs_from_the_defaults():
    assert Recipe().hash == Recipe(**DEFAULTS).hash
    assert Recipe(seed=1).hash != Recipe().hash
    assert Recipe(loss_options={"a": 1, "b": 2}).hash == Recipe(loss_options={"b": 2, "a": 1}).hash
    assert Recipe(seed=1).changes() == {"seed": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_images": 0.0}, "keep_images must be in"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"epochs": -1}, "epochs must be 0 or more"),
        ({"size": -5}, "size must be 0 or more"),
        ({"epochs": 1.5}, "epochs: wanted a value of type int, got 1.5"),
        ({"lr": "fast"}, "lr: wanted a value of type float, got 'fast'"),
        ({"loss_options": 3}, "loss_options: wanted options of plain values, got 3"),
    ],
)
def test_a_recipe_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)
