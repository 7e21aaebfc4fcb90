"""What a person sees of a page in a browser, at the width of a desk and of a phone, in light and in
dark: nothing runs over another thing or out of the page, and all of it can be reached by keyboard.

With NEARKIN_AXE, the path of axe.min.js (npm pack axe-core), it looks for violations as well.
"""

import os
from pathlib import Path

import pytest

from browser import chromium  # noqa: F401 - a fixture
from nearkin.answers import Answer, Dots, Finding, Matrix, Table
from nearkin.measure.statistics import Estimate
from nearkin.report import write_page
from nearkin.search.explore import explore, points_of_index
from nearkin.search.found import page as found_page
from reported import BARS, EVIL, HALF, LINES, make_rows
from test_explore import points
from test_index import COLOURS, folder, photograph, shop  # noqa: F401 - fixtures

SCREENS = [(width, scheme) for width in (1400, 390) for scheme in ("light", "dark")]
FAR = Estimate(0.1, 0.08, 0.12, 5)
LONG = "a method of which the name is as long as this"
METHODS = ("a", "b", "c", "d", "e", LONG)
SPREAD_OUT = Dots(
    "One far below",
    "R@1",
    METHODS,
    ("2-D", "64-D"),
    (*((HALF, HALF),) * 5, (FAR, HALF)),
    percent=True,
    marks=(("no training, 49.5 %", 0.495), ("within-class whitened, 49.6 %", 0.496)),
)
WIDE = Matrix("Wide", METHODS, METHODS, ((HALF,) * 6,) * 6, percent=True)
MANY = Table(
    "Many columns",
    ("method", *(f"column {i}, to another" for i in range(9)), "p"),
    ((LONG, *(HALF,) * 9, "< 0.001"), (EVIL, *(HALF,) * 9, "< 0.001")),
    percent=tuple(f"column {i}, to another" for i in range(9)),
)
CROWDED = """() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const level = (text) => Math.abs(text.getScreenCTM().b) < 1e-3 && text.textContent.trim();
    const texts = [...svg.querySelectorAll("text")].filter(level);
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((a, i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push(texts[i].textContent);
      boxes.slice(0, i).forEach((b, j) => {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 2 && down > 3) found.push(`${texts[j].textContent} | ${texts[i].textContent}`);
      });
    });
  }
  return found;
}"""


@pytest.fixture
def pages(tmp_path, shop) -> dict[str, Path]:  # noqa: F811
    """A study's page, a map of an index, and what a search found."""
    answer = Answer(
        "n-tuple networks",
        "Which has the highest R@1?",
        findings=(Finding("Finding."),),
        tables=(MANY, MANY),
        figures=(SPREAD_OUT, BARS, LINES, WIDE),
        summary=("It is 50.0 % at 64-D.",),
    )
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    text = found_page(shop, shop.search([tmp_path / "new.png"], k=4))
    (tmp_path / "found.html").write_text(text)
    return {
        "study": write_page(answer, make_rows(tmp_path), tmp_path, tmp_path),
        "map": explore(points_of_index(shop), tmp_path / "shop.html"),
        "found": tmp_path / "found.html",
    }


def test_no_page_runs_over_itself_or_out_of_its_window(chromium, pages):  # noqa: F811
    axe = os.environ.get("NEARKIN_AXE")
    for (width, scheme), (name, path) in ((s, p) for s in SCREENS for p in pages.items()):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        page.wait_for_timeout(100)
        root = "document.documentElement"
        beyond = page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
        assert beyond <= 0, (name, width)
        assert page.evaluate(CROWDED) == [], (name, width)
        if axe:
            page.add_script_tag(content=Path(axe).read_text())
            found = page.evaluate("axe.run().then((found) => found.violations)")
            grave = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
            assert grave == [], (name, width, scheme)
        page.close()


def test_a_map_is_read_by_keyboard_and_names_its_classes(chromium, tmp_path):  # noqa: F811
    shown = points()
    page = chromium.new_page(viewport={"width": 1200, "height": 800})
    page.goto(explore(shown, tmp_path / "map.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    named = [shown.labels[i] for i in page.evaluate("nearkin.middles()")]
    assert len(named) == len(set(named))
    assert set(named) == set(shown.labels)
    page.fill("#find", "a 5.png")
    page.keyboard.press("Enter")
    first = page.locator("#item ul").nth(1).locator("button").first
    first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#item > p").first.inner_text() != shown.names[5]
    page.close()
