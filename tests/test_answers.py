"""Figures as values: what seeds allow is a band, two points or one; two x are bars, not a curve."""

import pytest

from nearkin.answers import Answer, Dots, Line, Lines, Table
from nearkin.measure.statistics import estimate
from nearkin.report import plots

FIVE = [estimate([v, v + 0.01, v + 0.02, v + 0.03, v + 0.04]) for v in (0.1, 0.2, 0.3)]
TWO = [estimate([v, v + 0.04]) for v in (0.1, 0.2, 0.3)]
ONE = [estimate([v]) for v in (0.1, 0.2, 0.3)]


def test_a_band_is_of_three_seeds_or_more():
    line = Line.of("a", (1, 2, 3), FIVE)
    assert line.low == pytest.approx([e.low for e in FIVE])
    assert line.points == ()
    assert line.estimates()[1].low == FIVE[1].low


def test_two_seeds_are_points():
    line = Line.of("a", (1, 2, 3), TWO)
    assert (line.low, line.high) == ((), ())
    assert line.points == tuple(e.points for e in TWO)
    assert line.y == pytest.approx((0.12, 0.22, 0.32))
    assert line.estimates() == TWO


def test_one_seed_has_neither():
    line = Line.of("a", (1, 2, 3), ONE)
    assert (line.low, line.points) == ((), ())
    assert line.estimates() == ONE


def test_where_seeds_differ_in_number_the_band_has_no_width_without_an_interval():
    line = Line.of("a", (1, 2, 3), [FIVE[0], TWO[1], ONE[2]])
    assert line.low[0] < line.y[0] < line.high[0]
    assert line.low[1:] == line.high[1:] == line.y[1:]
    assert line.points == ((), TWO[1].points, ())


def test_two_x_are_bars():
    lines = Lines("t", "epoch", "R@1", (Line.of("a", (2, 4), FIVE[:2]),), percent=True, note="n")
    (figure,) = Answer("t", "q", figures=(lines,)).figures
    assert isinstance(figure, Dots)
    assert (figure.groups, figure.series) == (("a",), ("epoch 2", "epoch 4"))
    assert (figure.title, figure.y, figure.note, figure.percent) == ("t", "R@1", "n", True)
    assert [v.mean for v in figure.values[0] if v] == pytest.approx([0.12, 0.22])
    assert [v.low for v in figure.values[0] if v] == pytest.approx([e.low for e in FIVE[:2]])


def test_lines_of_different_x_share_the_series_of_the_bars():
    both = (Line.of("a", (2, 4), TWO[:2]), Line.of("b", (4,), ONE[:1]))
    figure = Lines("t", "epoch", "R@1", both).as_curves()
    assert isinstance(figure, Dots)
    assert figure.values == ((TWO[0], TWO[1]), (None, ONE[0]))


def test_three_x_are_a_curve_whose_references_have_two():
    lines = (Line.of("a", (1, 2, 3), FIVE), Line("bare", (1, 3), (0.1, 0.1), dashed=True))
    figure = Lines("t", "epoch", "R@1", lines)
    assert figure.as_curves() is figure


def test_figures_draw_the_points_of_two_seeds_and_no_band():
    def drawn(y) -> str:
        return plots.svg(Lines("t", "x", "y", (Line.of("a", (1, 2, 3), y),), percent=True))

    assert "10.0 / 14.0 %" in drawn(TWO)
    assert "10.0 % [" not in drawn(TWO)
    assert "12.0 % [" in drawn(FIVE)
    assert drawn(TWO).count("PolyCollection") == 0
    bars = plots.svg(Dots("t", "y", ("a",), ("s",), ((TWO[0],),), percent=True))
    assert "10.0 / 14.0" in bars
    assert "±" not in bars


def test_nothing_is_shown_of_what_has_nothing_in_it():
    empty = Answer("t", "q", tables=(Table("t", ("a",), ()),), figures=(Lines("t", "x", "y", ()),))
    assert (empty.tables, empty.figures) == ((), ())
