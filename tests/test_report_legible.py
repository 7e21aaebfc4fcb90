"""A page can be read by all: contrast in light and dark, by keyboard, and not too much at once."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nearkin.answers import FINDINGS, Answer, Finding, Table
from nearkin.report import canvas, plots, write_page
from reported import BARS, HALF, LINES, MATRIX, make_rows

CSS = (Path(plots.__file__).parent / "templates" / "style.css").read_text()


def colours(block: str) -> dict[str, str]:
    """The colours that a rule of the style sheet gives names."""
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block))


LIGHT, DARK, PRINT = map(colours, re.findall(r":root \{(.*?)\}", CSS))


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    channels = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast of two colours."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])
def test_text_stands_out_from_its_ground(scheme):
    assert contrast("#000", "#fff") == pytest.approx(21)
    for ink in ("ink", "soft"):
        for ground in ("paper", "wash"):
            assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground)
    for edge in ("right", "wrong", "accent"):
        if edge in scheme:
            assert contrast(scheme[edge], scheme["paper"]) >= 3, edge


def test_curves_and_dots_stand_out_in_light_and_in_dark():
    for colour in canvas.COLOURS[:4]:
        assert contrast(colour, LIGHT["paper"]) >= 2.5
        assert contrast(colour, DARK["paper"]) >= 2.5
    assert len(set(plots.MARKERS)) == len(canvas.COLOURS)  # never told by colour alone


class Tags(HTMLParser):
    """The tags of a page with their attributes, and which are inside folded details."""

    def __init__(self, text: str):
        super().__init__()
        self.all: list[tuple[str, dict, int]] = []
        self.depth = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.depth += tag == "details"
        self.all.append((tag, dict(attrs), self.depth))

    def handle_endtag(self, tag):
        self.depth -= tag == "details"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    found = tuple(Finding(f"Finding {i}.", p=i / 100) for i in range(10, 0, -1))
    table = Table("Scores", ("method", "R@1"), (("a", HALF),), percent=("R@1",))
    other = Table("Others", ("method", "R@1"), (("a", HALF),), percent=("R@1",))
    answer = Answer(
        "t",
        "q?",
        findings=found,
        tables=(table, other),
        figures=(BARS, LINES, MATRIX),
        summary=("It is 50.0 % at 64-D.",),
    )
    return write_page(answer, make_rows(folder), folder, folder).read_text()


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name_of_its_own(text):
    scrolled = [a for _, a, _ in Tags(text).all if "scroll" in (a.get("class") or "").split()]
    assert len(scrolled) > 5
    assert {a.get("tabindex") for a in scrolled} == {"0"}
    names = [a["aria-label"] for a in scrolled]
    assert len(set(names)) == len(names)


def test_one_picture_and_one_table_are_shown_and_all_else_is_folded_away(text):
    shown = [tag for tag, _, depth in Tags(text).all if not depth]
    folded = [tag for tag, _, depth in Tags(text).all if depth]
    assert (shown.count("figure"), shown.count("table")) == (1, 1)
    assert folded.count("figure") == 3  # two more, and the curves of every page
    assert folded.count("table") >= 3


def test_seven_findings_are_shown_the_surest_first_and_the_others_folded(text):
    order = re.findall(r"<li>Finding (\d+)\.", text)
    assert order == [str(i) for i in range(1, 11)]
    head, _, rest = text.partition("More findings (3)")
    assert head.count("<li>Finding") == FINDINGS
    assert rest.count("<li>Finding") == 3


def test_figures_take_the_ink_and_the_paper_of_the_page(text):
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawn
    for each in drawn:
        assert "var(--" in each
        assert not re.search(r"#222222|#444444|#888888|#e4e4e4", each)


def test_numbers_stay_beside_their_units(text):
    assert "It is 50.0\u00a0% at 64\u2011D." in text


def test_a_picture_of_its_own_has_a_white_ground():
    alone = canvas.on_paper(plots.svg(BARS))
    assert re.search(r"<svg [^>]*><rect [^>]*fill=\"#ffffff\"/>", alone)
    assert "var(" not in alone
