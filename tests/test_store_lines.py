"""Lines of rows are read once, however they were written; a run's folder belongs to one run."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from finished import finished
from nearkin.files import remove, sync_folder, write_whole
from nearkin.leases import Leases, Taken
from nearkin.runs import lines as lines_module
from nearkin.runs.identity import key_of
from nearkin.runs.lines import Lines
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Files, Row, to_json
from nearkin.runs.store import Store


def row(seed: int, data: str = "", folder: str = "") -> Row:
    made = finished(Recipe(seed=seed), 0.5)
    folder = folder or f"runs/{made.hash}"
    return replace(made, data=replace(made.data, fingerprint=data), files=Files(folder))


def text_of(*rows: Row, ending: str = "\n") -> str:
    return "\n".join(json.dumps(to_json(one)) for one in rows) + ending


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """The hashes of the rows that were parsed."""
    seen: list[str] = []
    real = lines_module.from_json

    def watched(raw):
        seen.append(raw["hash"])
        return real(raw)

    monkeypatch.setattr(lines_module, "from_json", watched)
    return seen


# ---- lines


def test_a_whole_last_row_without_its_line_break_is_read_and_stays(tmp_path):
    store = Store(tmp_path)
    store.file.write_text(text_of(row(1), row(2), ending=""))
    assert store.rows() == [row(1), row(2)]
    assert store.find(row(2).recipe) == row(2)
    store.append(row(3))
    assert store.rows() == [row(1), row(2), row(3)]
    assert len(store.file.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_row_that_was_cut_off_is_none_wherever_it_was_cut(tmp_path, cut):
    store = Store(tmp_path)
    whole = text_of(row(1), row(2), ending="")
    store.file.write_text(whole[:-cut])
    assert store.rows() == [row(1)]
    store.append(row(3))
    assert store.rows() == [row(1), row(3)]


def test_empty_lines_are_nothing(tmp_path):
    store = Store(tmp_path)
    store.file.write_text("\n" + text_of(row(1)) + "\n  \n" + text_of(row(2)) + "\n\n")
    assert store.rows() == [row(1), row(2)]


def test_a_file_in_another_order_of_keys_is_read(tmp_path):
    store = Store(tmp_path)
    raw = to_json(row(1))
    store.file.write_text(json.dumps(dict(reversed(raw.items())), indent=None) + "\n")
    assert store.find(row(1).recipe) == row(1)


def test_a_row_is_found_without_parsing_the_others(tmp_path, parsed):
    store = Store(tmp_path)
    store.file.write_text(text_of(*(row(seed) for seed in range(50))))
    for _ in range(3):
        assert store.find(row(7).recipe) == row(7)
        assert store.find(Recipe(seed=99)) is None
    assert parsed == [row(7).hash]
    assert Store(tmp_path).find(row(8).recipe) == row(8)  # another store of the same folder
    assert parsed == [row(7).hash, row(8).hash]


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    store, read = Store(tmp_path), []
    real = Lines.read
    monkeypatch.setattr(Lines, "read", lambda *words: read.append(1) or real(*words))
    store.append(row(1))
    assert (store.rows(), store.rows(), store.find(row(1).recipe)) == ([row(1)], [row(1)], row(1))
    assert len(read) == 1
    store.append(row(2))
    assert store.rows() == [row(1), row(2)]
    assert len(read) == 2
    store.file.write_text(text_of(row(3), row(4)))
    assert store.rows() == [row(3), row(4)]
    store.file.unlink()
    assert store.rows() == []


def test_rows_of_several_data_have_one_hash_and_several_keys(tmp_path):
    store = Store(tmp_path)
    rows = [row(1, "aaaa"), row(1, "bbbb"), row(1, "aaaa"), row(1)]
    for one in rows:
        store.append(one)
    assert store.rows() == [rows[0], rows[1], rows[3]]
    assert store.of_hash(row(1).hash) == [rows[0], rows[1], rows[3]]
    assert list(store.stored()) == [key_of(row(1).hash, d) for d in ("aaaa", "bbbb", "")]
    assert store.find(row(1).recipe) == rows[3]


def old(recipe: Recipe, hash: str, study: str = "") -> str:
    """A line as it was written before rows had numbers of schemas and recipes knew trials."""
    raw = to_json(finished(recipe, 0.5))
    for part in ("schema", "own_object", "metric_versions", "made_of"):
        del raw[part]
    for part in ("fingerprint", "left_out", "showable", "size"):
        raw["data"].pop(part, None)
    del raw["recipe"]["trial"]
    return json.dumps({**raw, "hash": hash, "study": study}) + "\n"


def test_rows_of_before_and_what_started_from_them_have_the_hashes_of_today(tmp_path):
    """Three generations: the hash of the first changes, so that of the second, and of the third."""
    store = Store(tmp_path)
    first = Recipe(loss="contrastive", loss_options={"margin": 1})
    second = Recipe(start="0" * 12, seed=1)
    third = Recipe(start="1" * 12, seed=2)
    store.file.write_text(old(third, "2" * 12) + old(first, "0" * 12) + old(second, "1" * 12))
    found = {one.recipe.seed: one for one in store.rows()}
    assert found[0].hash == first.hash == Recipe(loss="contrastive").hash
    assert found[1].recipe.start == found[0].hash
    assert found[1].hash == replace(second, start=found[0].hash).hash
    assert found[2].recipe.start == found[1].hash
    assert found[2].hash == replace(third, start=found[1].hash).hash
    assert store.find(replace(third, start=found[1].hash)) == found[2]
    assert store.of_hash("2" * 12) == [found[2]]  # by its name of before


def test_a_circle_of_starts_ends(tmp_path):
    store = Store(tmp_path)
    store.file.write_text(
        old(Recipe(start="1" * 12, seed=1), "0" * 12) + old(Recipe(start="0" * 12), "1" * 12)
    )
    assert len(store.rows()) == 2


def test_a_line_of_before_is_looked_into_once(tmp_path, monkeypatch):
    store, seen = Store(tmp_path), []
    real = lines_module.migrated
    monkeypatch.setattr(lines_module, "migrated", lambda *words: seen.append(1) or real(*words))
    store.file.write_text(old(Recipe(seed=1), Recipe(seed=1).hash))
    assert store.find(Recipe(seed=9)) is None
    looked = len(seen)
    store.append(row(2))
    assert store.find(Recipe(seed=9)) is None
    assert len(seen) == looked


# ---- folders and claims


def test_the_folder_of_a_run_is_its_hash_unless_another_run_has_it(tmp_path):
    store = Store(tmp_path)
    hash, one, other = row(1).hash, row(1, "aaaa"), row(1, "bbbb")
    assert store.run_folder(one.key) == tmp_path / "runs" / hash
    store.append(one)
    assert store.run_folder(one.key) == tmp_path / "runs" / hash
    assert store.run_folder(other.key) == tmp_path / "runs" / other.key
    store.append(replace(other, files=Files(f"runs/{other.key}")))
    assert store.run_folder(other.key) == tmp_path / "runs" / other.key


def test_who_waited_for_the_folder_of_another_run_gets_one_of_its_own(tmp_path):
    """Two runs of one recipe on two data begin at once, when neither has a row."""
    one, other, seen = row(1, "aaaa"), row(1, "bbbb"), []

    def second():
        with Store(tmp_path).claim(other.key) as folder:
            seen.append(folder)

    with Store(tmp_path).claim(one.key) as folder:
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        assert not seen
        Store(tmp_path).append(replace(one, files=Files(f"runs/{folder.name}")))
    waiting.join(10)
    assert seen == [tmp_path / "runs" / other.key]


HOLD = """
import sys, time
from pathlib import Path
from nearkin.leases import Leases
with Leases()(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_claim_ends_with_its_process(tmp_path):
    folder = tmp_path / "runs" / "a"
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Taken, match="another process"), Leases()(folder, wait=False):
            pass
        holder.kill()
        holder.wait()
    with Leases()(folder, wait=False):
        pass


def test_a_store_takes_claims_of_any_kind(tmp_path):
    log = []

    class Claims:
        @contextmanager
        def __call__(self, folder, wait=True):
            log.append(("begin", folder.name, wait))
            folder.mkdir(parents=True)
            yield
            log.append(("end", folder.name, wait))

        def taken(self, folder):
            return folder.name == "a"

    store = Store(tmp_path, claims=Claims())
    with store.claim("a", wait=False) as folder:
        assert folder.is_dir()
    assert log == [("begin", "a", False), ("end", "a", False)]
    assert store.taken("a")


# ---- the disk


@pytest.fixture
def synced(monkeypatch) -> list[str]:
    """The files and folders that were handed to the disk, in their order."""
    seen: list[str] = []
    real = os.fsync

    def watched(number):
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")))
        real(number)

    monkeypatch.setattr(os, "fsync", watched)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="open files are named by /proc")
def test_where_another_writes_a_row_is_on_the_disk_in_a_file_of_its_own(
    tmp_path, synced, monkeypatch
):
    monkeypatch.setattr("nearkin.runs.store.PATIENCE", 0.0)
    store = Store(tmp_path / "out")
    with Store(tmp_path / "out").claims(store.parts):
        del synced[:]
        store.append(row(1), row(2))
        assert not store.file.exists()
        for one in (row(1), row(2)):
            assert any(name.startswith(f".{one.hash}") for name in synced)
        assert set(store.stored()) == {row(1).key, row(2).key}
    store.append(row(3), row(1))
    assert not list(store.parts.glob("*.json"))
    assert [json.loads(line)["hash"] for line in store.file.read_text().splitlines()] == [
        row(n).hash for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("spoilt", ["rows.jsonl", ".rows.jsonl.parts/x.json"])
def test_a_row_is_safe_where_others_cannot_be_read(tmp_path, spoilt):
    store = Store(tmp_path)
    store.append(row(1))
    (tmp_path / spoilt).write_text("no row\n")
    with pytest.raises(ValueError, match="is not a row"):
        store.append(row(2))
    assert [path.stem for path in store.parts.glob(f"{row(2).hash}*.json")] == [row(2).key]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are named by /proc")
def test_what_is_written_and_removed_is_on_the_disk_with_its_name(tmp_path, synced):
    write_whole(tmp_path / "a.pt", lambda file: file.write(b"x"))
    assert synced[-1] == tmp_path.name
    assert synced[0].startswith(".a.pt")
    del synced[:]
    remove(tmp_path / "a.pt")
    remove(tmp_path / "a.pt")
    assert synced == [tmp_path.name]
    del synced[:]
    Store(tmp_path / "out").append(row(1))
    assert synced[-2:] == ["rows.jsonl", "out"]
    del synced[:]
    with Store(tmp_path / "new").claim("a"):
        assert {"new", "runs", tmp_path.name} <= set(synced)
    sync_folder(tmp_path)
