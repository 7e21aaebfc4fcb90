"""`nearkin report`: the pages of a folder, made anew from its rows."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from nearkin.names import look_up
from nearkin.registry import STUDIES


def report(folder: Positional[Path], study: str = "", publish: Path | None = None) -> None:
    """Write the pages of a folder anew, without running anything: of its studies, finished or not,
    and of its single runs.

    Example: nearkin report out/toolkit

    Example: nearkin report out --study attention --publish docs/results

    Args:
        folder: the --out of earlier studies and runs.
        study: the one whose pages are made; by default all, and that of single runs.
        publish: folder of published results, to write the rows and the Markdown pages to.
    """
    from nearkin.report import single_runs
    from nearkin.report.publishing import keep, noted, results, show
    from nearkin.runs.row import Row
    from nearkin.runs.store import Store

    rows = Store(folder).stored()
    if not rows:
        raise ValueError(f"{folder} holds no rows: wanted the --out folder of a study or a run")
    if study:
        look_up(study, STUDIES, "study")
    pages = [page for page in noted(folder) if study in ("", page.study)]
    single = [r for r in rows.values() if isinstance(r, Row) and not r.study and not study]
    if not pages and not single:
        raise ValueError(f"{folder} holds no page of {f'study {study!r}' if study else 'a study'}")
    for page in pages:
        module = look_up(page.study, STUDIES, "study")
        found = [rows[hash] for hash in page.rows if hash in rows]
        if len(found) < len(page.rows):
            print(f"{page.name}: {len(found)} of {len(page.rows)} runs are done")
        if not results(found):
            continue
        show(module.answer, found, folder, page.name, page.command)
        if publish:
            keep(module.answer, found, folder, publish, page.name, page.command)
    if single:
        show(single_runs.answer, single, folder, "runs", "")
        if publish:
            keep(single_runs.answer, single, folder, publish, "runs", "")
