"""`nearkin doctor`: what ails a run, stored features or an index, and what cures it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from nearkin.app.output import Machine
from nearkin.files import resolved

if TYPE_CHECKING:
    from nearkin.doctor import Diagnosis
    from nearkin.runs.place import Place


def doctor(
    first: Positional[Path],
    hash: str = "",
    cure: Path | None = None,
    json: bool = False,
    machine: OmitArgPrefixes[Machine] = Machine(),
) -> None:
    """Say what ails a run, a file of features or an index: each illness with its evidence, and the
    flag that cures it.

    Example: nearkin doctor out

    Example: nearkin doctor features.npz --cure healed.npz

    Example: nearkin doctor shop

    Args:
        first: an --out folder of `nearkin train`, the folder of one of its runs, an .npz file of
            features (x, y, and split where there is one), or an index.
        hash: of an --out folder, the run; by default all of them.
        cure: of a file of features, a new file without what ails them: copies, leaks and items
            whose labels look wrong are left out; badly scaled features are whitened, and wasted
            dimensions cut off.
        json: print one JSON object a patient, with the items that ail.
    """
    from json import dumps

    from nearkin.files import refuse_source

    if cure and not first.is_file():
        raise ValueError(f"--cure wants an .npz file of features, got {first}")
    if cure:
        refuse_source(cure, first)
    patients = consult(first, hash, machine.place())
    for name, found in patients.items():
        if json:
            print(dumps({"patient": name, "diagnoses": [asdict(each) for each in found]}))
        else:
            print(f"{name}: {'ill' if found else 'healthy'}")
            print("".join(f"  {line}\n" for each in found for line in lines(each)), end="")
    if cure:
        write_healed(first, cure, patients[str(first)])


def consult(path: Path, hash: str, place: Place) -> dict[str, list[Diagnosis]]:
    """Name of a patient -> what ails it.

    Raises:
        ValueError: the path is none of a run, features or an index.
    """
    from nearkin.runs.health import of_features, of_run
    from nearkin.runs.store import Store

    if path.is_file():
        return {str(path): of_features(path)}
    if (path / "index.json").is_file():
        return {str(path): of_index(path)}
    for out in (path, path.absolute().parent.parent):
        if (out / "rows.jsonl").is_file():
            rows = [row for row in Store(out).rows() if hash in ("", row.hash)]
            folders = {row.key: resolved(out / row.files.folder) for row in rows}
            rows = [row for row in rows if out == path or folders[row.key] == resolved(path)]
            if rows:
                return {f"run {row.key}": of_run(row, folders[row.key], place) for row in rows}
            if hash:
                raise ValueError(f"{path} holds no run {hash}")
    raise ValueError(
        f"{path}: wanted an --out folder, the folder of a run in one, an .npz file of features, or "
        "an index"
    )


def of_index(path: Path) -> list[Diagnosis]:
    """What ails the photographs of an index; of several sources the first is the training set."""
    import numpy as np

    from nearkin.doctor import examine
    from nearkin.search.explore import points_of_index
    from nearkin.search.index import Index

    points = points_of_index(Index(path), thumbnails=False)
    splits = points.splits
    return examine(
        np.asarray(points.vectors),
        [label or "" for label in points.labels],
        [split != splits[0] for split in splits] if splits else None,
        metric=points.metric,
    )


def write_healed(path: Path, cure: Path, found: list[Diagnosis]) -> None:
    """Write the features of a file without what ails them."""
    import numpy as np

    from nearkin.data.arrays import read_arrays
    from nearkin.doctor.cure import healed
    from nearkin.files import write_whole

    arrays = read_arrays(path)
    made = healed(arrays, found)
    write_whole(cure, lambda file: np.savez(file, **made))
    x = made["x"]
    print(f"{cure}: {len(x):,} of {len(arrays['x']):,} items, {x.shape[1]}-D")


def lines(found: Diagnosis) -> list[str]:
    """A diagnosis as a person reads it."""
    such = ", ".join(map(str, found.items[:5])) + (", ..." if len(found.items) > 5 else "")
    return [
        f"{found.name} ({found.severity})",
        f"  {found.evidence}",
        *([f"  items {such}"] if such else []),
        f"  cure: {found.cure}",
    ]
