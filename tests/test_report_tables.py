"""Tables print numbers with the decimals that their intervals deserve, and text as it is."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearkin.answers import Table
from nearkin.measure.statistics import SHARES, Estimate, estimate
from nearkin.report import tables

NASTY = "<script>alert('50 % | $x_1$ & \\cmd{*b*} ~^#\"')</script> [red]λ ≤ 1[/red]"


def around(mean: float, half: float, n: int = 5) -> Estimate:
    return Estimate(mean, mean - half, mean + half, n)


TABLE = Table(
    title="Every <kind> of cell",
    columns=("method", "R@1", "seconds", "parameters", "published"),
    rows=(
        (NASTY, around(0.573, 0.004), around(120.4, 6.2), 1_663_370, None),
        ("triplet", around(0.561, 0.0052), around(31.0, 4.1), 512, "58.1 (own net)"),
        ("one seed", around(0.573, 0.0, n=1), None, None, None),
    ),
    note="Means & 95 % intervals.",
    best=("R@1",),
    lowest=("seconds",),
    percent=("R@1",),
)


def texts(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in tables.cells(table)]


def test_every_kind_of_cell_is_printed_by_its_kind():
    assert texts(TABLE) == [
        [NASTY, "57.3 ± 0.4", "120 ± 6", "1,663,370", "–"],
        ["triplet", "56.1 ± 0.5", "31 ± 4", "512", "58.1 (own net)"],
        ["one seed", "57.3", "–", "–", "–"],
    ]
    assert tables.heads(TABLE) == ["method", "R@1 %", "seconds", "parameters", "published"]
    assert tables.kinds(TABLE) == ["text", "number", "number", "number", "text"]


def test_the_best_is_what_prints_best_by_the_columns_own_sense():
    best = [[cell.best for cell in row] for row in tables.cells(TABLE)]
    assert [row[1] for row in best] == [True, False, True]  # both print 57.3
    assert [row[2] for row in best] == [False, True, False]  # the lowest
    assert not any(row[i] for row in best for i in (0, 3, 4))


def test_a_lone_number_is_not_the_best_of_anything():
    table = Table("t", ("a", "b"), ((0.5, None), (None, 0.5)), best=("a", "b"))
    assert not any(cell.best for row in tables.cells(table) for cell in row)


@pytest.mark.parametrize(
    ("values", "percent", "printed"),
    [
        ([around(0.9954, 0.0003)], True, ["99.54 ± 0.03"]),
        ([around(0.9954, 0.0014)], True, ["99.54 ± 0.14"]),
        ([around(-0.003, 0.0051)], True, ["−0.3 ± 0.5"]),
        (
            [around(0.0198, 0.004), around(2.1e6, 1.5e7), around(-257.0, 12), 3.0],
            False,
            ["0.02 ± 0.004", "2.1e6 ± 1.5e7", "−260 ± 12", "3"],
        ),
        ([around(-2e-15, 0.0038), around(-0.029, 0.004)], True, ["0.0 ± 0.4", "−2.9 ± 0.4"]),
        ([0.9954, 0.9961], True, ["99.54", "99.61"]),
        ([0.573, 0.5], True, ["57.3", "50.0"]),
        ([-0.5, 0.25], True, ["−50.0", "25.0"]),
        ([0.1, 0.5, 1.1], False, ["0.1", "0.5", "1.1"]),
        ([2.0, 64.0], False, ["2", "64"]),
        ([1e-4, 0.5, 0.25], False, ["0.0001", "0.500", "0.250"]),
        ([float("nan"), float("inf"), 0.5], False, ["–", "–", "0.5"]),
        ([12_345_678.9], False, ["12,345,679"]),
        ([0, 0.0], False, ["0", "0"]),
        ([estimate([0.912, 0.92])], True, ["91.2 / 92.0"]),
        ([estimate([0.912, 0.92]), around(0.9, 0.0123)], True, ["91.2 / 92.0", "90.0 ± 1.2"]),
        ([estimate([0.912])], True, ["91.2"]),
        ([estimate([3.0, 64.0])], False, ["3 / 64"]),
        (
            [estimate([0.001, 0.002, 0.06], within=SHARES), around(0.5, 0.02)],
            True,
            ["2.1 [0.0, 10.5]", "50.0 ± 2.0"],
        ),
        ([Estimate(1e-7, 0.0, 4e-7, 5), around(0.9, 0.1)], False, ["1e−7 [0, 4e−7]", "0.9 ± 0.1"]),
    ],
)
def test_decimals_follow_the_interval_or_the_size(values, percent, printed):
    assert [str(s) for s in tables.column(values, percent)] == printed


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.integers(2, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_printed_lies_within_half_a_unit_of_what_was_meant(values):
    column = [around(mean, half, n) for mean, half, n in values]
    apart = tables.decimals(column) is None  # two significant digits each
    for value, shown in zip(column, tables.column(column), strict=True):
        if apart:
            printed = float(shown.text.replace("−", "-"))
            assert printed == pytest.approx(value.mean, rel=0.05)
            continue
        digits = len(shown.text.partition(".")[2])
        printed = float(shown.text.replace(",", "").replace("−", "-"))
        assert abs(printed - value.mean) <= 0.5 * 10**-digits * (1 + 1e-6)


def test_a_unit_is_what_the_table_says_and_not_what_a_column_is_called():
    table = Table(
        "t",
        ("directions 2 to 4", "gain", "to full"),
        ((0.347, 0.012, around(0.012, 0.004)), (0.38, -0.02, around(-0.02, 0.005))),
        percent=("directions 2 to 4",),
        points=("gain",),
    )
    assert tables.heads(table) == ["directions 2 to 4 %", "gain, points", "to full"]
    assert texts(table)[0][:2] == ["34.7", "1.20"]
    assert tables.kinds(table) == ["number"] * 3
    with pytest.raises(ValueError, match="'gain' is in per cent or in points, not in both"):
        replace(table, percent=("gain",))
    with pytest.raises(ValueError, match="no column 'loss'"):
        replace(table, points=("loss",))


def test_columns_that_do_not_exist_and_short_rows_are_errors():
    with pytest.raises(ValueError, match="no column 'R@2'"):
        Table("t", ("a",), (), best=("R@2",))
    with pytest.raises(ValueError, match="2 columns, but a row"):
        Table("t", ("a", "b"), (("x",),))


class Reader(HTMLParser):
    """The text of each cell, and the tags met."""

    def __init__(self, text: str):
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


def test_html_gives_back_every_text_and_holds_no_tag_of_its_content():
    read = Reader(tables.html(TABLE))
    assert read.cells == tables.heads(TABLE) + [text for row in texts(TABLE) for text in row]
    assert set(read.tags) == {"table", "thead", "tbody", "tr", "th", "td", "b", "span"}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_html_escapes_any_text(text):
    assert Reader(tables.html(Table("t", ("a",), ((text,),)))).cells == ["a", text]


def test_markdown_has_the_same_columns_in_every_line_and_no_markup_of_its_content():
    lines = [line for line in tables.markdown(TABLE).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(TABLE.rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {1 + len(TABLE.columns)}
    assert "<" not in tables.markdown(TABLE)
    assert r"\*b\*" in tables.markdown(TABLE)
    assert "| **57.3 ± 0.4** |" in tables.markdown(TABLE)
    assert lines[1] == "| --- | ---: | ---: | ---: | --- |"


def test_an_interval_of_shares_never_leaves_0_to_100_per_cent():
    """Whatever the seeds."""
    for values in ([0.0, 0.0, 0.4], [1.0, 0.99, 0.6], [0.4, 0.0, 1.0]):
        (cell,) = tables.column([estimate(values, within=SHARES)], percent=True)
        ends = [float(x) for x in re.findall(r"[\d.]+", cell.interval)]
        assert cell.interval.startswith("[")
        assert 0 <= ends[0] < ends[1] <= 100


def test_rows_below_the_line_are_never_the_best():
    rows = (("a", 0.5), ("b", 0.6), ("own batches", 0.9))
    table = Table("t", ("name", "R@1"), rows, best=("R@1",), percent=("R@1",), above=2)
    assert [row[1].best for row in tables.cells(table)] == [False, True, False]
    lines = tables.markdown(table).splitlines()
    assert lines[-3:] == ["| b | **60.0** |", "|  |  |", "| own batches | 90.0 |"]
    bodies = str(tables.html(table)).split("<tbody>")
    assert ["own batches" in body for body in bodies] == [False, False, True]
    assert [row.end_section for row in tables.terminal(table).rows] == [False, True, True]
    whole = Table("t", ("name", "R@1"), rows, best=("R@1",), percent=("R@1",))
    assert [row[1].best for row in tables.cells(whole)] == [False, False, True]
    assert "|  |  |" not in tables.markdown(whole)
