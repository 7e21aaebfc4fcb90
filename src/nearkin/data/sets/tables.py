"""csv:FILE: a table of pictures, one a row, with the class of each."""

from __future__ import annotations

import csv
import errno
import os
import re
import warnings
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from nearkin.data.request import Absent, Request
from nearkin.data.sets.folders import PART_OF, PARTS
from nearkin.data.sets.listings import Listing, assembled, in_halves
from nearkin.data.sets.tree import class_name
from nearkin.data.splits import Splits
from nearkin.data.terms import holds_others_pictures
from nearkin.files import open_regular

LARGEST = 2**30  # bytes of a table
UTF_16 = {b"\xff\xfe", b"\xfe\xff"}  # how it begins, as Excel's "Unicode text" does
PATH, CLASS = ("path", "file", "filename", "image"), ("class", "label", "category")
"""What the columns of a picture and of its class may be called, in any case."""
TELLING = ("split", "is_query", "is_gallery")
"""The columns that say what trains and what is tested."""
FLAGS = {"is_train", "is_training", "is_test", "is_validation"}
"""Columns of others that tell a part, and are not read."""
BOXES = {"x_1", "y_1", "x_2", "y_2"}
YES = {"1", "1.0", "true", "yes"}


def table(request: Request) -> Splits:
    """The pictures of a CSV file: columns path, class and, if you like, split.

    Paths are relative to the file's folder. split says train, test, val, query or gallery; without
    that column the first half of the sorted classes trains, and the rest tests. The columns of
    OML's tables are understood: label, and is_query and is_gallery of what split calls validation;
    its boxes are not cut out, which the variant says.
    """
    path = request.root
    name = f"csv:{path}"
    lines = read_lines(path, name)
    columns = list(lines[0][1])
    where, kind = (column(columns, names, name) for names in (PATH, CLASS))
    unread = unread_columns(columns, where, kind)
    refuse_parts_by_another_name(unread, [row for _, row in lines], columns, name)
    pairs: dict[str, list[tuple[str, str]]] = {}
    classes: dict[str, str] = {}
    named: dict[str, str] = {}  # the place of a file -> as a row writes it
    for number, row in lines:
        at = f"{name}, line {number}"
        file, label = (row[where] or "").strip(), class_name((row[kind] or "").strip())
        if not file or not label:
            raise ValueError(f"{at}: wanted a path and a class, got {file!r} and {label!r}")
        place = os.path.normpath(path.parent / expanded(file))
        if classes.setdefault(place, label) != label:
            raise ValueError(f"{at}: {file} has two classes, {classes[place]!r} and {label!r}")
        named.setdefault(place, file)
        for part in parts_of(row, at):
            pairs.setdefault(part, []).append((expanded(file), label))
    listings, variant = splits_of(name, pairs)
    absent = [file for place, file in named.items() if not is_there(Path(place))]
    if absent and not request.skip_bad:
        raise ValueError(
            f"{name}: {len(absent):,} of {len(classes):,} files are not there, such as "
            f"{absent[0]:.200}"
        )
    if again := len(lines) - len(named):
        again = f"{again:,} row{'s name' if again > 1 else ' names'} a picture that stands before"
        warnings.warn(f"{name}: {again}: it counts each time", stacklevel=3)
    showable = not (request.private or holds_others_pictures(path.parent))
    boxes = {(each or "").strip().lower() for each in columns} >= BOXES
    unused = ("columns x_1, y_1, x_2, y_2: pictures are read whole",) if boxes else ()
    if other := [each for each in unread if not (boxes and each.strip().lower() in BOXES)]:
        unused = (*unused, f"column{'s' * (len(other) > 1)} {', '.join(other)}")
    return assembled(
        name,
        path.parent,
        listings,
        request,
        variant=", ".join(filter(None, [variant, "boxes not cut out" if boxes else ""])),
        showable=showable,
        halved=set(pairs) == {""},
        unused=unused,
    )


def unread_columns(columns: list[str], where: str, kind: str) -> list[str]:
    """The columns with a name that are none of path, class and parts."""
    read = {where, kind, *(each for each in columns if (each or "").strip().lower() in TELLING)}
    return [each for each in columns if each and each.strip() and each not in read]


def refuse_parts_by_another_name(
    unread: list[str], rows: list[dict[str, str]], columns: list[str], name: str
) -> None:
    """Refuse a column that tells parts, such as train and test, or is called is_train, and is not
    called split, where no column is: its test pictures would train."""
    if any((each or "").strip().lower() in TELLING for each in columns):
        return
    for each in unread:
        told = {(row[each] or "").strip().lower() for row in rows}
        if each.strip().lower() in FLAGS:
            raise ValueError(
                f"{name}: column {each} tells a part: call it split, of train and test"
            )
        if len(told) > 1 and told <= set(PART_OF):
            raise ValueError(
                f"{name}: column {each} tells {' and '.join(sorted(told)[:2])}: call it split"
            )


def is_there(path: Path) -> bool:
    """Whether a file is there; one whose name is longer than a system's names can be is not."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def read_table(path: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table by its head; columns stand between commas, semicolons or tabs."""
    return [row for _, row in read_lines(path, name)]


def read_lines(path: Path, name: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the line that it ends in."""
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-16" if data[:2] in UTF_16 else "utf-8-sig")
    except FileNotFoundError:
        raise Absent(f"{name}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: wanted text in UTF-8 or UTF-16 ({error})") from None
    if len(data) > LARGEST:
        raise ValueError(f"{name}: more than {LARGEST:,} bytes, too large for a table of pictures")
    body = text.lstrip("\r\n")
    if told := re.match("sep=(.)\r?\n", body):  # as Excel's tables may begin
        body = body[told.end() :]
    above = text[: len(text) - len(body)].count("\n")
    head = body.partition("\n")[0]
    between = told[1] if told else max(",;\t", key=head.count)
    try:
        reader = csv.DictReader(StringIO(body, newline=""), delimiter=between, strict=True)
        rows = [(above + reader.line_num, row) for row in reader if not is_blank(row)]
    except csv.Error as error:
        raise ValueError(f"{name}: not a whole table ({error})") from None
    for number, row in rows:
        if None in row:  # what stands beyond the head's columns
            raise ValueError(f"{name}, line {number}: not a whole table, more cells than columns")
    if not rows:
        raise ValueError(f"{name}: wanted a line of column names and a row for each picture")
    names = [(each or "").strip().lower() for each in reader.fieldnames or ()]
    for each in (*PATH, *CLASS, *TELLING):
        if names.count(each) > 1:
            raise ValueError(f"{name}: wanted one column {each}, got {names.count(each)}")
    return rows


def is_blank(row: Mapping[str, str | list[str] | None]) -> bool:
    """Whether nothing stands in a row."""
    return not any("".join(value or ()).strip() for value in row.values())


def column(columns: list[str], names: tuple[str, ...], name: str) -> str:
    """The column that has one of these names, the first of them that is there."""
    by_name = {(each or "").strip().lower(): each for each in columns}
    for wanted in names:
        if wanted in by_name:
            return by_name[wanted]
    others = f" (or {', '.join(names[1:])})" if names[1:] else ""
    raise ValueError(f"{name}: wanted a column {names[0]}{others}, got {columns}")


def parts_of(row: Mapping[str, str], at: str) -> list[str]:
    """The parts that a row belongs to: one, or query and gallery both; "" where it does not say."""
    by_name = {(key or "").strip().lower(): value for key, value in row.items()}
    said = (by_name.get("split") or "").strip().lower()
    if said and said not in PART_OF:
        raise ValueError(f"{at}: split must be train, test, val, query or gallery, got {said!r}")
    part = PART_OF.get(said, "")
    flags = [
        flag
        for flag in ("query", "gallery")
        if str(by_name.get(f"is_{flag}") or "").strip().lower() in YES
    ]
    return flags if part in ("val", "test") and flags else [part]


def splits_of(
    name: str, pairs: Mapping[str, list[tuple[str, str]]]
) -> tuple[dict[str, Listing], str]:
    """The listings of the splits, and what the variant says of them."""
    found = {part: Listing.of(of) for part, of in pairs.items()}
    if set(found) == {""}:
        return in_halves(name, found[""]), ""
    if "" in found:
        raise ValueError(f"{name}: wanted split in every row, or in none")
    if "train" not in found:
        raise ValueError(f"{name}: wanted rows of split train, got {', '.join(sorted(found))}")
    used = next((part for part in ("test", "query", "val") if part in found), "")
    if not used:
        raise ValueError(f"{name}: wanted rows to test on: split test, val, or query with gallery")
    listings = {"train": found["train"], "query": found[used]}
    if used == "query" and "gallery" in found:
        if pairs["gallery"] != pairs["query"]:
            listings["gallery"] = found["gallery"]
        del found["gallery"]
    tested = ["tested on val"] if used == "val" else []
    left = [f"{part} not used" for part in PARTS if part in found and part not in ("train", used)]
    return listings, ", ".join([*tested, *left])


def expanded(file: str) -> str:
    """A path as it is typed, with ~ as the home folder and slashes of either kind."""
    return os.path.expanduser(file if os.sep == "\\" else file.replace("\\", "/"))
