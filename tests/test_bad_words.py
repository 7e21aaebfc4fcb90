"""1,500 bad command lines, drawn from the parser's own flags: one line on stderr, exit code 2, and
nothing under --out.

A line is a sound command with one fault put into it, of a kind that FAULTS names.
"""

import contextlib
import io
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from nearkin import registry
from nearkin.app.main import COMMANDS, main
from nearkin.app.parse import flags
from nearkin.names import resolve

LINES = 1_500
FEATURES = "features:points.npz"
SOUND = {
    "list": "",
    "train": f"--data {FEATURES} --backbone linear --dim 3 --batch 12 --per-class 3 --epochs 1",
    "study": "toolkit --demo --seeds 1 --epochs 1",
    "report": "finished",
    "choose": "--data nowhere.npz",
    "evaluate": "--embeddings points.npz",
    "doctor": "points.npz",
    "embed": f"--data {FEATURES} --backbone identity --output made.npz",
    "data": "where cub",
    "cache": "show",
    "index": "nowhere photos --output made",
    "search": "finished photo.jpg",
    "calibrate": "finished",
    "explore": "nowhere",
    "serve": "nowhere",
    "export": "nowhere",
    "check": "nowhere",
    "completion": "bash",
}
"""Command -> words that it takes; what `finished` and `nowhere` name is not there."""

NAMED: dict[str, Mapping[str, object]] = {
    "--data": registry.DATASETS,
    "--backbone": registry.BACKBONES,
    "--loss": registry.LOSSES,
    "--sampler": registry.SAMPLERS,
    "--augment": registry.AUGMENTS,
    "--optimizer": registry.OPTIMIZERS,
    "--schedule": registry.SCHEDULES,
    "--precision": registry.PRECISIONS,
    "--metric": dict.fromkeys(registry.METRICS),
    "--refine": registry.SOURCES,
    "--on": dict.fromkeys(("local", "slurm", "ray")),
}
READ = {"--embeddings", "--gallery", "--checkpoint", "--recipe", "--start"}
WRITTEN = {"--out", "--publish", "--output"}
NO_INTEGERS = ("", "many", "1.5", "1e3", "0x10", "--", "nan", "1,5", "None", "[]", "9" * 5000)
NO_FLOATS = ("", "much", "1,5", "0x1p3", "nan", "inf", "-inf", "1e999", "None", "[1]", "--")
BEYOND = ("-1", str(-(2**63)), str(2**63), str(10**26))
PAIRS = ("", "=", "=1", "margin", "margin 1", "a=1 a=2", "nowhere=1", "margin=NaN", "margin=1e999")
PAIRS += ("margin=abc", "margin=null", "margin=[1]", 'margin={"a":1}', "margin=true", "Margin=1")


def misspelt(word: str, draw: random.Random) -> str:
    """The word with one letter lost, doubled, changed or moved."""
    at = draw.randrange(len(word))
    return draw.choice(
        [
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + draw.choice("aeioxyzß_0") + word[at + 1 :],
            word[:at] + word[at:][1:2] + word[at : at + 1] + word[at + 2 :],
            word.upper(),
        ]
    )


def bad_value(flag: str, kind: Any, draw: random.Random) -> list[str] | None:
    """Words after a flag of this type that it must refuse; None where any text will do."""
    if is_optional(kind):
        (kind,) = (k for k in get_args(kind) if k is not type(None))
        value = bad_value(flag, kind, draw)
        while value == ["None"]:  # which is a value here
            value = bad_value(flag, kind, draw)
        return value
    if get_origin(kind) is Mapping:
        return [*draw.choice(PAIRS).split()] or [""]
    if get_origin(kind) is tuple:
        return bad_value(flag, get_args(kind)[0], draw)
    if get_origin(kind) is Literal:
        known = get_args(kind)
        wrong = misspelt(draw.choice([word for word in known if word]), draw)
        return [wrong] if wrong not in known else ["nowhere"]
    if flag in NAMED:
        wrong = misspelt(draw.choice(list(NAMED[flag])), draw)
        return [wrong if wrong and wrong not in NAMED[flag] else "nowhere"]
    if flag in READ:
        return [draw.choice(["nowhere", "nowhere/at.all", ".", "empty", "\udcff", "n" * 300])]
    if flag in WRITTEN:
        return [draw.choice(["in-the-way", "in-the-way/below", "points.npz/x"])]
    if kind is bool:
        return [draw.choice(["yes", "1", "true"])]
    if kind is int:
        return [draw.choice(NO_INTEGERS + BEYOND)]
    if kind is float:
        return [draw.choice((*NO_FLOATS, "-1"))]
    return None


def is_optional(kind: Any) -> bool:
    """Whether None is a value of this type."""
    return type(None) in get_args(kind)


def without(words: list[str], flag: str) -> list[str]:
    """The words without a flag and its values."""
    if flag not in words:
        return words
    at = words.index(flag)
    end = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:at] + words[end:]


def wrong_value(command: str, words: list[str], draw: random.Random) -> list[str]:
    """A value that its flag cannot have."""
    known = flags(resolve(COMMANDS[command]))
    for flag in draw.sample(list(known), len(known)):
        value = bad_value(flag, known[flag], draw)
        if value is not None:
            return [*without(words, flag), flag, *value]
    return [*words, "surplus"]


def unknown_flag(command: str, words: list[str], draw: random.Random) -> list[str]:
    """A flag that the command does not have, with a value or without."""
    known = {*flags(resolve(COMMANDS[command])), "--help", "--recipe"}
    flag = misspelt(draw.choice(sorted(known)), draw)
    while flag.lower().replace("_", "-") in known or not flag.startswith("--") or len(flag) < 4:
        flag = misspelt(draw.choice(sorted(known)), draw)
    return [*words, flag, *draw.choice([[], ["1"], ["x", "y"]])]


def flag_twice(command: str, words: list[str], draw: random.Random) -> list[str]:
    """A flag given twice, of which one would be dropped."""
    known = flags(resolve(COMMANDS[command]))
    if not known:
        return [*words, "surplus"]
    flag = draw.choice(list(known))
    other = flag.replace("-", "_").replace("__", "--", 1) if draw.random() < 0.5 else flag
    return [*without(words, flag), flag, "1", f"{other}=1"]


def value_missing(command: str, words: list[str], draw: random.Random) -> list[str]:
    """A flag without its value, at the end or before another flag."""
    known = flags(resolve(COMMANDS[command]))
    takers = [f for f, kind in known.items() if kind in (int, float, str, Path)]
    if not takers:
        return [*words, "surplus"]
    flag = draw.choice(takers)
    return [*without(words, flag), flag]


def surplus(command: str, words: list[str], draw: random.Random) -> list[str]:
    """A word that belongs to nothing."""
    return [draw.choice(["surplus", "-", "x=1", "-q", "\udcff", "ß"]), *words]


def wrong_command(command: str, words: list[str], draw: random.Random) -> list[str]:
    """No such command."""
    return []


FAULTS = (wrong_value, wrong_value, wrong_value, unknown_flag, flag_twice, value_missing, surplus)


def lines(seed: int = 0, count: int = LINES) -> list[list[str]]:
    """The bad command lines, the same ones every time."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        command = draw.choice(list(SOUND))
        fault = draw.choice(FAULTS)
        words = fault(command, SOUND[command].split(), draw)
        if draw.random() < 0.05:
            command = misspelt(command, draw)
            if command in COMMANDS:
                continue
        found[tuple([command, *words])] = fault.__name__
    return [list(words) for words in found]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to stand in."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(folder: Path) -> None:
    """Put features of eight classes there, and a file in the way."""
    folder.mkdir(exist_ok=True)
    x, y = np.random.default_rng(0).normal(size=(8, 5)), np.repeat(np.arange(8), 6)
    np.savez(folder / "points.npz", x=x[y], y=y)
    (folder / "in-the-way").write_text("")
    (folder / "empty").write_bytes(b"")
    (folder / "finished").mkdir()


def faults_of(words: list[str], folder: Path, before: set[Path]) -> str:
    """What is wrong with how a bad command line is refused; "" where nothing is."""
    said, printed = io.StringIO(), io.StringIO()
    code: object = "no exit"
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        try:
            main(words)
        except SystemExit as left:
            code = left.code
        except BaseException as error:
            code = repr(error)[:200]
    text = said.getvalue()
    made = set(folder.rglob("*")) - before
    for path in made:
        path.unlink() if path.is_file() else None
    if code != 2:
        return f"ended with {code}: {text[-200:]}"
    if text.count("\n") != 1 or not re.match(r"nearkin: \S.*\n", text):
        return f"said {text!r:.300}"
    if printed.getvalue():
        return f"printed {printed.getvalue()!r:.200}"
    return f"made {sorted(map(str, made))[:3]}" if made else ""


def test_every_command_is_drawn():
    assert set(SOUND) == set(COMMANDS)


def test_bad_command_lines_are_refused_in_one_line_and_leave_nothing(folder):
    before = set(folder.rglob("*"))
    wrong = {tuple(words): faults_of(words, folder, before) for words in lines()}
    wrong = {words: fault for words, fault in wrong.items() if fault}
    report = "\n".join(f"{' '.join(words)!r:.150}: {fault}" for words, fault in wrong.items())
    assert not wrong, f"{len(wrong)} of {LINES}:\n{report}"
