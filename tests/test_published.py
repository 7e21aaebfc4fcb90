"""Every page under docs/results is what its command makes of the rows that stand beside it."""

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from nearkin.app.main import main
from nearkin.report import page, publishing
from nearkin.runs import executors

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PAGES = sorted(RESULTS.glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_made_of_the_rows_beside_it(path, tmp_path, monkeypatch):
    text = path.read_text()
    *_, command = re.findall(r"^    nearkin (study .*)$", text, re.MULTILINE)
    (tmp_path / "docs").mkdir()
    for part in publishing.parts(RESULTS, path.stem):
        if part.file.exists():
            assert part.file.stat().st_size < 2e6
            shutil.copy(part.file, tmp_path / "docs")

    def refuse(*_, **__):
        raise AssertionError("a run is missing")

    def drawn(figure, stem, store, earlier):  # takes long, and says what tables say
        return next(iter((RESULTS / path.stem).glob(f"{stem.name}.*")), None)

    monkeypatch.setattr(executors, "run", refuse)
    monkeypatch.setattr(executors, "measure", refuse)
    monkeypatch.setattr(executors, "there", lambda *_: None)
    monkeypatch.setattr(publishing, "show", lambda *_: None)
    monkeypatch.setattr(page.pictures, "save", drawn)
    out = ["--out", str(tmp_path / "out"), "--publish", str(tmp_path / "docs")]
    main([*shlex.split(command), *out])
    assert (tmp_path / "docs" / path.name).read_text() == text


def test_the_overview_says_what_its_pages_say():
    text = (RESULTS.parent / "results.md").read_text()
    entries = re.findall(r"^- \[.*\]\(results/(.*\.md)\): (.*)$", text, re.MULTILINE)
    assert len(entries) > 30
    for name, answer in entries:
        page = (RESULTS / name).read_text()
        sentences = re.findall(r"^\*\*(.*[.!?])\*\* *$", page, re.MULTILINE)
        assert answer == " ".join(sentences), f"{name}: python docs/pages.py none"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_table_of_a_page_is_empty_and_no_minus_is_a_hyphen(path):
    lines = [line for line in path.read_text().split("\n") if not line.startswith("    ")]
    empty = [a for a, b in pairwise(lines) if re.match(r"\|( -+:? \|)+$", a) and b[:1] != "|"]
    assert empty == []
    hyphen = re.compile(r"(?<![\w.-])-\d|\de-\d")
    assert [line for line in lines if hyphen.search(line)] == []


def test_no_picture_of_a_page_is_missing_or_left_over():
    for path in PAGES:
        shown = {unquote(link) for link in re.findall(r"!\[.*\]\((\S+)\)", path.read_text())}
        folder = RESULTS / path.stem
        assert shown == {f"{path.stem}/{picture.name}" for picture in folder.iterdir()}


def test_the_picture_of_readme_is_cut_out_of_that_of_its_page(monkeypatch):
    monkeypatch.syspath_prepend(RESULTS.parent / "site")
    import digits  # pyright: ignore[reportMissingImports]

    with Image.open(digits.PICTURE) as kept:
        shown, cut = (np.asarray(one.convert("RGB"), int) for one in (kept, digits.cut()))
    assert shown.shape == cut.shape
    assert np.abs(shown - cut).mean() < 1  # of 255: a picture of few colours
    assert len(digits.SHOWN) % digits.ACROSS == 0  # no hole
    readme = (RESULTS.parents[1] / "README.md").read_text()
    assert str(digits.PICTURE.relative_to(RESULTS.parents[1])) in readme


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs"])
def test_what_the_documents_link_to_is_there(name):
    root = RESULTS.parents[1] / name
    for path in sorted(root.glob("*.md")) if root.is_dir() else [root]:
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text())
        own = [unquote(link) for link in links if not re.match(r"[a-z]+:", link)]
        assert [link for link in own if not (path.parent / link).exists()] == []
