"""python tests/campaign.py: what `make test` takes slices of, whole; writes a receipt.

    fuzz        2,000 changed files of each kind (tests/fuzz.py)
    kills       80 at random of train, study, embed and report, 100 of index (tests/kills.py)
    words       6,000 bad command lines (tests/test_bad_words.py)
    fleet       200 tiny runs by 4 workers, 20 of them killed at random (benchmarks/fleet.py)
    worlds      1,000 simulated worlds, in which a threshold is to keep its promise on new classes
    doctor      the zoo of 17 sick and 17 healthy runs, under 3 seeds (tests/zoo.py)

Each kind is a process of its own, so that a crash is one failure and not the end. The receipt,
docs/receipts/DATE.json, has the date and machine, and of each part its count, seconds, failures,
commit and load. `--share 0.1` takes a tenth of all counts, `--parts fuzz worlds` these parts alone;
what the receipt of the day has of other parts stays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILES, LINES, WORLDS = 2000, 6000, 1000
KILLS = {"train": 30, "study": 10, "embed": 20, "index": 100, "report": 20}
PATIENCE = 7200
"""Seconds after which a part is stopped, which is a failure."""


def fuzz(kind: str, count: int, folder: Path) -> list[str]:
    """What is wrong with how changed files of a kind are read."""
    from fuzz import KINDS, attempts, seed_of

    return list(attempts(KINDS[kind], count, seed_of(kind) + 1, folder))


def kills(job: str, count: int, folder: Path) -> list[str]:
    """What is wrong with the end of a command that was killed so often."""
    from kills import JOBS, Server, killed

    server = Server()
    try:
        return killed(server, JOBS[job], count, count, folder)
    finally:
        server.end()


def words(name: str, count: int, folder: Path) -> list[str]:
    """Bad command lines that are not refused as they should be."""
    from test_bad_words import faults_of, lines, prepare

    prepare(folder)
    os.chdir(folder)
    before, wrong = set(folder.rglob("*")), []
    for words in lines(seed=1, count=count):
        if fault := faults_of(words, folder, before):
            wrong.append(f"{' '.join(words)!r:.150}: {fault}")
    return wrong


def worlds(name: str, count: int, folder: Path) -> list[str]:
    """A promise that is kept in less than 95 % of the worlds, less what chance allows."""
    import numpy as np
    from benchmarks.verification import WORLDS, draw, impostors

    from nearkin.measure.verify import threshold

    shape = WORLDS[name]
    strange, kept, promised = impostors(*draw(np.random.default_rng(1), 600, 8, *shape)), 0, 0
    for seed in range(count):
        x, y = draw(np.random.default_rng(1000 + seed), 25, 6, *shape)
        found = threshold(x, y, far=1e-2)
        if found.value is not None:
            promised += 1
            kept += bool(1 - np.searchsorted(strange, found.value) / len(strange) <= 1e-2)
    slack = 2 * (0.95 * 0.05 / count) ** 0.5
    sound = promised > count / 2 and kept >= (0.95 - slack) * promised
    return [] if sound else [f"kept in {kept} of {promised} worlds, of {count}"]


def fleet(name: str, count: int, folder: Path) -> list[str]:
    """What is wrong with a study that workers share, a tenth as many of which are killed as it has
    runs: a row that is missing, double, or not that of one worker."""
    from benchmarks.fleet import study

    folder.mkdir(parents=True, exist_ok=True)
    found = study(folder, count, 4, max(1, count // 10))
    whole = found["rows"] == count and not found["doubles"] and not found["left_apart"]
    return [] if whole and found["equal"] and found["ended_well"] else [json.dumps(found)]


def doctor(name: str, count: int, folder: Path) -> list[str]:
    """Sick runs that are not named or not healed, and healthy ones that are called ill."""
    from zoo import HEALTHY, SEEDS, SICK, healthy, sick

    seen = [
        found
        for seed in SEEDS[:count]
        for kinds, look in ((SICK, sick), (HEALTHY, healthy))
        for found in (look(kind, seed) for kind in kinds)
    ]
    return [line for fine, line in seen if not fine]


PARTS = {
    "doctor": doctor,
    "fleet": fleet,
    "fuzz": fuzz,
    "kills": kills,
    "words": words,
    "worlds": worlds,
}


def plan(share: float) -> list[tuple[str, str, int]]:
    """(part, name, count) of all that is to be done."""
    from fuzz import KINDS

    def some(count: float) -> int:
        return max(1, round(share * count))

    found = [("kills", job, some(count)) for job, count in KILLS.items()]
    found += [("fuzz", name, some(kind.share * FILES)) for name, kind in KINDS.items()]
    found += [("words", "bad command lines", some(LINES)), ("fleet", "4 workers", some(200))]
    found += [("doctor", "zoo", some(3))]
    found += [("worlds", name, some(WORLDS)) for name in ("16-D", "8-D, uneven", "32-D")]
    return found


def carried_out(part: str, name: str, count: int) -> dict[str, Any]:
    """A part in a process of its own: what the receipt says of it."""
    start = time.monotonic()
    call = [sys.executable, "-W", "ignore", __file__, "--only", part, name, str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    try:
        done = subprocess.run(call, capture_output=True, env=environment, timeout=PATIENCE)
        try:
            failures = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            said = done.stderr.decode(errors="replace")[-300:]
            failures = [f"it ended with {done.returncode}: {said}"]
    except subprocess.TimeoutExpired:
        failures = [f"not done in {PATIENCE} s"]
    seconds = round(time.monotonic() - start, 1)
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    found = {"part": part, "name": name, "count": count, "seconds": seconds, "commit": commit}
    return {**found, "load": round(os.getloadavg()[0], 1), "failures": failures}


def merged(before: list[dict[str, Any]], done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a day, each as it was last done."""
    return list({(each["part"], each["name"]): each for each in (*before, *done)}.values())


def receipt(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What was done, where and when."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "seconds": round(sum(each["seconds"] for each in parts), 1),
        "attempts": sum(each["count"] for each in parts),
        "failures": sum(len(each["failures"]) for each in parts),
        "parts": parts,
    }


def main() -> None:
    """Carry out all parts, and write the receipt after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of all counts")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    parser.add_argument("--only", nargs=3, metavar=("PART", "NAME", "COUNT"), help="one part")
    given = parser.parse_args()
    if given.only:
        part, name, count = given.only
        with tempfile.TemporaryDirectory() as folder:
            printed = json.dumps(PARTS[part](name, int(count), Path(folder) / "x"))
        print(f"\n{printed}")
        return
    path = ROOT / "docs" / "receipts" / f"{date.today().isoformat()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text())["parts"] if path.exists() else []
    todo = [each for each in plan(given.share) if each[0] in given.parts]
    done: list[dict[str, Any]] = []
    for part, name, count in todo:
        done.append(found := carried_out(part, name, count))
        wrong = len(found["failures"])
        print(
            f"{len(done)}/{len(todo)} {part} {name}: {count:,}, {wrong} wrong, "
            f"{found['seconds']} s",
            *found["failures"][:3],
            sep="\n    ",
            flush=True,
        )
        path.write_text(json.dumps(receipt(merged(before, done)), indent=1) + "\n")
    raise SystemExit(any(each["failures"] for each in done))


if __name__ == "__main__":
    main()
