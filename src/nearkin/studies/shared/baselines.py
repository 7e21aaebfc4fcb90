"""Trained heads against what no gradient has trained: every closed form, and each its own start."""

from __future__ import annotations

from collections.abc import Callable

from nearkin.answers import Finding, Table
from nearkin.studies.shared import over_forms, over_starts
from nearkin.studies.shared.reading import method
from nearkin.studies.study import Case, Rows


def tables(rows: Rows, place: str = "", by: Callable[[Case], str] = method) -> tuple[Table, ...]:
    """What training adds to the closed forms, and to its start; none where these are missing."""
    return *over_forms.tables(rows, place, by), *over_starts.tables(rows, place, by)


def findings(rows: Rows, place: str = "", by: Callable[[Case], str] = method) -> list[Finding]:
    """The best closed form and who is surely better or worse; and what training adds to a start."""
    return over_forms.findings(rows, place, by=by) + over_starts.findings(rows, place, by)
