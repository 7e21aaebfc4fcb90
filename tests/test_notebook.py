"""What a notebook shows of a Row, an Answer, a Model and an Index: tables."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

import nearkin as nk
from finished import finished
from nearkin import answers, notebook
from nearkin.answers import Answer, Table
from nearkin.models.preprocess import photographs_at
from nearkin.runs.recipe import Recipe
from nearkin.search import values
from nearkin.search.values import Hit

TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "h3", "p", "b", "span"}
EVIL = "<script>alert('kin')</script>"


class Text(HTMLParser):
    """The text of HTML, and which elements it has; an element that nobody meant fails."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.open = "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


def test_text_is_escaped_and_what_is_not_there_is_left_out():
    shown = Text(notebook.facts(EVIL, [(EVIL, EVIL), ("none", None), ("empty", "")])).text
    assert shown.count(EVIL) == 3
    assert "none" not in shown
    assert "empty" not in shown
    assert Text(notebook.table(EVIL, (EVIL,), [(EVIL,), (EVIL,)])).text.count(EVIL) == 4


def test_a_row_shows_what_ran_and_what_came_of_it():
    row = finished(Recipe(data="cub", loss="triplet", epochs=3, seed=5), recall=0.573)
    shown = Text(row._repr_html_()).text
    for part in (row.hash, "done", "cub", "triplet", "64", "57.3 %", "66.0"):
        assert part in shown
    evil = replace(row, data=replace(row.data, name=EVIL), own_object=EVIL)
    assert Text(evil._repr_html_()).text.count(EVIL) == 2
    lost = replace(row, status="diverged", metrics=replace(row.metrics, last=None))
    assert "R@1" not in Text(lost._repr_html_()).text


def test_an_answer_shows_its_summary_and_its_first_table():
    table = Table(EVIL, ("method", "R@1"), ((EVIL, 0.571), ("plain", 0.5)), percent=("R@1",))
    answer = Answer("Which?", "?", summary=(f"{EVIL} leads.",), tables=(table, table))
    shown = Text(answer._repr_html_() or "").text
    assert shown.count(EVIL) == 2  # the table's title is the page's matter
    assert "57.1" in shown
    assert Text(Answer("None", "?")._repr_html_() or "").text.strip() == "None"


def test_an_answer_is_plain_text_where_the_extra_report_is_missing(monkeypatch):
    def absent(entry):
        raise answers.MissingExtra("wanted markupsafe")

    monkeypatch.setattr(answers, "resolve", absent)
    assert Answer("Which?", "?")._repr_html_() is None


def test_an_answer_of_a_search_shows_hits():
    hits = (Hit("a.jpg", EVIL, 0.98765), Hit("b.jpg", None, 0.5))
    shown = Text(values.Answer("new.jpg", hits, EVIL, 0.6, True)._repr_html_()).text
    assert shown.count(EVIL) == 2
    assert "60 %" in shown
    assert "0.9877" in shown
    unknown = values.Answer("new.jpg", hits, EVIL, 0.6, False)
    assert "unknown" in Text(unknown._repr_html_()).text


def test_a_model_and_its_index_show_what_they_take(tmp_path):
    net = nk.Network(16, 16, 3, 6).add_conv(3, 3, 2, 2, 4).add_fc(6)
    model = nk.Model(net, photographs_at(16, mean=(0, 0, 0), std=(1, 1, 1)))
    shown = Text(model._repr_html_()).text
    for part in ("16 x 16", "6 numbers", model.identity):
        assert part in shown
    (tmp_path / "photos" / "red").mkdir(parents=True)
    Image.new("RGB", (16, 16), "red").save(tmp_path / "photos" / "red" / "a.png")
    index = nk.Index.create(model, tmp_path / "<b>shop")
    index.update(tmp_path / "photos", labels="parent")
    shown = Text(index._repr_html_()).text
    for part in ("<b>shop", "6 numbers", model.identity, "photographs 1", "labels 1"):
        assert part in " ".join(shown.split())
    assert "1 photographs" in repr(index)


def test_a_model_of_vectors_shows_that_it_takes_numbers():
    model = nk.Model(torch.nn.Linear(5, 3), metric="euclidean", shape=(5,))
    assert "numbers" in Text(model._repr_html_()).text


def test_the_display_needs_no_more_than_the_value():
    code = "import nearkin.notebook, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


@pytest.mark.parametrize("value", [0.5, 0.99349])
def test_a_share_is_per_cent(value):
    assert notebook.share(value) == f"{100 * value:.1f} %"
