"""A lease has one holder at a time, on whatever machine; the dead lose theirs, the slow notice."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from finished import finished
from nearkin import leases as leases_module
from nearkin.leases import FREE, Leases, Taken, last_lease
from nearkin.runs import line_index
from nearkin.runs import store as store_module
from nearkin.runs.lines import KNOWN
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Measurement, to_json
from nearkin.runs.store import Store


def elsewhere(folder: Path, number: int = 1, text: str = "other-host 12 34 abc 0") -> None:
    """A lease as a process of another machine holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"lease.{number}").write_text(text)


def test_one_holds_it_and_then_another(tmp_path):
    leases = Leases()
    with leases(tmp_path):
        assert leases.taken(tmp_path)
        with pytest.raises(Taken, match="another process"), Leases()(tmp_path, wait=False):
            pass
    assert not leases.taken(tmp_path)
    with Leases()(tmp_path, wait=False):
        assert [p.name for p in tmp_path.iterdir()] == ["lease.2"]


def test_many_threads_never_hold_it_at_once(tmp_path):
    inside, most, turns = [], [], []

    def work():
        for _ in range(10):
            with Leases()(tmp_path):
                inside.append(1)
                most.append(len(inside))
                turns.append(1)
                inside.pop()

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (max(most), len(turns)) == (1, 60)


def test_the_lease_of_another_machine_is_taken_over_once_it_is_silent(tmp_path):
    elsewhere(tmp_path)
    leases = Leases(stale=0.3)
    with pytest.raises(Taken), leases(tmp_path, wait=False):
        pass
    for beat in range(1, 5):  # it lives: no clock is compared, the text changes
        time.sleep(0.1)
        elsewhere(tmp_path, 1, f"other-host 12 34 abc {beat}")
        assert leases.taken(tmp_path)
    with leases(tmp_path):
        assert last_lease(tmp_path)[0] == 2


def test_a_dead_process_of_this_machine_is_told_at_once(tmp_path):
    host = leases_module.host()
    if host == leases_module.UNKNOWN:
        pytest.skip("this system does not tell which processes are alive")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    born = leases_module.born(child.pid)
    child.wait()
    elsewhere(tmp_path, 7, f"{host} {child.pid} {born} abc 3")
    assert not Leases().taken(tmp_path)
    me = os.getpid()
    elsewhere(tmp_path, 8, f"{host} {me} {leases_module.born(me)} abc 3")
    assert Leases().taken(tmp_path)
    elsewhere(tmp_path, 9, f"{host} {me} 1 abc 3")  # another process had our number before us
    assert not Leases().taken(tmp_path)


def test_a_holder_gives_signs_of_life(tmp_path):
    with Leases(beat=0.02)(tmp_path):
        seen = set()
        until = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < until:
            seen.add(last_lease(tmp_path)[1])
    assert len(seen) >= 3
    assert last_lease(tmp_path)[1] == FREE


def test_who_sleeps_too_long_loses_the_lease_and_is_told_where_it_matters(tmp_path):
    def work():
        with Leases()(tmp_path):
            elsewhere(tmp_path, 2)
            raise FileNotFoundError("a half-written file that the other has swept")

    with pytest.raises(Taken, match="taken over"):
        work()
    assert last_lease(tmp_path)[1].startswith("other-host")  # which is not freed


def test_a_number_that_was_given_long_ago_is_no_lease(tmp_path, monkeypatch):
    """A waiter saw lease 5 free, and slept while others took 6 and 7, and removed 6."""
    elsewhere(tmp_path, 5, FREE)
    leases = Leases()
    real = leases.state

    def slept(folder):
        found = real(folder)
        if found[0] == 5:
            elsewhere(folder, 7)
        return found

    monkeypatch.setattr(leases, "state", slept)
    with pytest.raises(Taken), leases(tmp_path, wait=False):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lease.5", "lease.7"]


def test_what_was_seen_goes_to_other_processes_as_ages(tmp_path):
    elsewhere(tmp_path)
    leases = Leases(stale=0.2)
    assert leases.taken(tmp_path)
    time.sleep(0.25)
    state = leases.__getstate__()
    assert 0.25 <= state["seen"][str(tmp_path)][2] < 10
    assert not pickle.loads(pickle.dumps(leases)).taken(tmp_path)


def test_a_full_disk_leaves_no_lease_that_nobody_ends(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, Leases()(tmp_path):
        patch.setattr(Path, "write_text", full)
    with Leases()(tmp_path, wait=False):
        pass


@pytest.mark.parametrize("text", ["", "\xff\xfe", "a b", "x" * 5000])
def test_a_lease_that_nobody_can_read_is_held_until_it_is_stale(tmp_path, text):
    elsewhere(tmp_path, 1, text)
    leases = Leases(stale=0.05)
    assert leases.taken(tmp_path)
    time.sleep(0.1)
    assert not leases.taken(tmp_path)


# ---- rows in files of their own, and the file of all


def row(seed: int):
    return finished(Recipe(seed=seed), 0.5)


def hashes(store: Store) -> list[str]:
    return [one.hash for one in store.stored().values()]


def test_a_row_is_read_while_another_machine_holds_the_file_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "PATIENCE", 0.1)
    store = Store(tmp_path)
    store.append(row(1))
    elsewhere(store.parts, 99)
    store.append(row(2))
    assert len(store.file.read_text().splitlines()) == 1
    assert hashes(store) == [row(1).hash, row(2).hash]
    assert store.find(row(2).recipe) == row(2)
    (store.parts / "lease.99").write_text(FREE)
    store.append(row(3))
    assert len(store.file.read_text().splitlines()) == 3
    assert not list(store.parts.glob("*.json"))
    assert hashes(store) == [row(seed).hash for seed in (1, 2, 3)]


def test_a_kill_between_the_file_of_all_and_the_part_leaves_no_double(tmp_path):
    store = Store(tmp_path)
    store.append(row(1), row(2))
    (store.parts / f"{row(1).key}.json").write_text(json.dumps(to_json(row(1))))
    assert hashes(store) == [row(1).hash, row(2).hash]
    store.append(row(3))
    assert len(store.file.read_text().splitlines()) == 3


def test_who_slept_while_the_file_grew_writes_nothing(tmp_path, monkeypatch):
    store, other = Store(tmp_path), Store(tmp_path)
    store.append(row(1))
    write_line = (json.dumps(to_json(row(2))) + "\n").encode()
    real = store_module.Lines.of_hash

    def slow(lines, hash):
        if hash == row(3).hash and other.file.read_bytes().count(b"\n") == 1:
            with open(other.file, "ab") as file:  # the other machine's, meanwhile
                file.write(write_line)
        return real(lines, hash)

    monkeypatch.setattr(store_module.Lines, "of_hash", slow)
    store.append(row(3))
    assert hashes(Store(tmp_path)) == [row(seed).hash for seed in (1, 2, 3)]


def test_a_part_that_is_no_row_is_named(tmp_path):
    store = Store(tmp_path)
    store.append(row(1))
    (store.parts / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json is not a row"):
        store.stored()


# ---- the index


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    """A store whose file is large enough to have an index, and how often the file was scanned."""
    monkeypatch.setattr(store_module, "WORTH", 0)
    store, scans = Store(tmp_path), []
    real = store_module.Lines.read

    def watched(file, text):
        scans.append(1)
        return real(file, text)

    monkeypatch.setattr(store_module.Lines, "read", watched)
    return store, scans


def test_a_file_with_an_index_is_not_scanned(indexed):
    store, scans = indexed
    for seed in range(5):
        store.append(row(seed))
    KNOWN.clear()
    del scans[:]
    assert store.find(row(3).recipe) == row(3)
    assert store.rows() == [row(seed) for seed in range(5)]
    store.append(row(5))
    assert store.rows() == [row(seed) for seed in range(6)]
    assert not scans


@pytest.mark.parametrize("way", ["append", "edit", "cut", "replace", "blank"])
def test_what_is_put_there_by_hand_is_read(indexed, way):
    store, _ = indexed
    for seed in range(3):
        store.append(row(seed))
    other = Store(store.folder)
    lines = store.file.read_text().splitlines(keepends=True)
    by_hand = json.dumps(to_json(row(7))) + "\n"
    changed = finished(Recipe(seed=1), 0.6)
    match way:
        case "append":
            store.file.write_text("".join(lines) + by_hand)
            wanted = [row(0), row(1), row(2), row(7)]
        case "edit":  # as long as before
            text = "".join(lines)
            at = text.index(lines[1])
            edited = lines[1].replace("0.5", "0.6")
            store.file.write_text(text[:at] + edited + text[at + len(edited) :])
            wanted = [row(0), changed, row(2)]
        case "cut":
            store.file.write_text("".join(lines)[:-30])
            wanted = [row(0), row(1)]
        case "replace":
            store.file.unlink()
            store.file.write_text(by_hand)
            wanted = [row(7)]
        case _:
            store.file.write_text("\n" + "\n\n".join(lines) + "\n \n" + by_hand.strip())
            wanted = [row(0), row(1), row(2), row(7)]
    assert other.rows() == wanted
    KNOWN.clear()
    assert Store(store.folder).rows() == wanted
    other.append(row(9))
    assert other.rows() == [*wanted, row(9)]
    KNOWN.clear()
    assert Store(store.folder).rows() == [*wanted, row(9)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("nearkin-lines 1", "other 2"),
        lambda text: text + "1 2\n",
        lambda text: "\n".join(text.splitlines()[::-1]),
        lambda text: "",
        lambda text: text.replace(" ", "\xff"),
    ],
)
def test_an_index_that_is_damaged_is_none(indexed, damage):
    store, _ = indexed
    for seed in range(3):
        store.append(row(seed))
    store.index.write_text(damage(store.index.read_text()))
    KNOWN.clear()
    assert store.rows() == [row(0), row(1), row(2)]
    store.append(row(3))
    KNOWN.clear()
    assert store.rows() == [row(seed) for seed in range(4)]


def test_an_index_of_another_time_is_not_believed(indexed):
    """Both files are old copies' and new ones' of each other."""
    store, _ = indexed
    store.append(row(0))
    old = store.index.read_text()
    store.append(row(1))
    store.index.write_text(old)
    KNOWN.clear()
    assert store.rows() == [row(0), row(1)]
    state = line_index.state_of(store.file)
    assert state is not None
    lie = [line_index.Entry(0, 10**6, 1, "a")]  # beyond the file
    line_index.write_index(store.index, lie, state)
    KNOWN.clear()
    assert store.rows() == [row(0), row(1)]


def test_measurements_and_rows_of_before_are_found_beside_an_index(indexed):
    store, _ = indexed
    raw = to_json(row(1))
    del raw["schema"]
    store.file.parent.mkdir(parents=True, exist_ok=True)
    store.file.write_text(json.dumps(raw) + "\n")
    store.append(Measurement("x", {"value": 1}), row(2))
    KNOWN.clear()
    assert [one.hash for one in store.of_hash("x")] == ["x"]
    assert store.find(row(1).recipe) is not None
    assert not store.index.exists()  # of lines whose hashes may yet change
    assert replace(row(2)) == store.find(row(2).recipe)
