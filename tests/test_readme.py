"""README's commands are commands, and it stays short; its Python block runs in test_examples."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from nearkin.app.main import COMMANDS, main
from nearkin.app.parse import flags
from nearkin.names import resolve
from nearkin.search.index import Index
from nearkin.studies import choice

README = (Path(__file__).parents[1] / "README.md").read_text()
LINES = [line.partition("#")[0].strip() for line in re.findall(r"^    (nearkin .*)$", README, re.M)]


def test_it_is_short():
    assert len(README.splitlines()) <= 110


@pytest.mark.parametrize("line", LINES)
def test_its_commands_and_flags_are_there(line):
    _, command, *words = shlex.split(line)
    known = {*flags(resolve(COMMANDS[command])), "-k"}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_way_from_photographs_to_search_runs_as_typed(tmp_path, monkeypatch, capsys):
    """Its lines from the first to the map, on a small folder; the service has tests of its own, and
    so has the choice among more than a loss, a closed form and two settings of each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "CLOSED", {"within-class whitened": {"head_start": "whitened"}})
    monkeypatch.setattr(choice, "LOSSES", dict(list(choice.LOSSES.items())[:1]))
    for name in ("CLOSED_SETTINGS", "LOSS_SETTINGS"):
        monkeypatch.setattr(choice, name, getattr(choice, name)[:2])
    monkeypatch.setattr(Index, "write_light", lambda index: False)  # it takes seconds
    for kind in range(8):
        for i in range(6):
            colour = (30 * kind, 255 - 30 * kind, 20 * i)
            path = Path("photos") / f"class {kind}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), colour).save(path)
    Image.new("RGB", (40, 30), (60, 190, 30)).save("new.jpg")
    way = [line for line in LINES if "photos/" in line or " shop" in line or " mine" in line]
    assert len(way) == 9
    for line in way:
        _, command, *words = shlex.split(line)
        if command not in ("serve", "export"):
            main([command, *words])
    out = capsys.readouterr().out
    assert "class 2" in out
    assert Path("shop.html").is_file()
