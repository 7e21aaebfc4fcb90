"""Claim: labels of one class are equal, whatever they came as; what is no label is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nearkin.labels import numbered, plain_labels


def plain(labels) -> list:
    return plain_labels(labels, "labels must be three").tolist()


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 2],
        [1.0, 0.0, 2.0],
        [True, 0, 2],
        np.array([1, 0, 2], np.uint8),
        np.array([1, 0, 2], np.float16),
        np.array([1, 0.0, np.int8(2)], object),
        torch.tensor([1, 0, 2], dtype=torch.int16),
        torch.tensor([1.0, 0.0, 2.0], dtype=torch.bfloat16),
    ],
)
def test_numbers_are_integers(labels):
    assert plain(labels) == [1, 0, 2]
    assert plain_labels(labels, "").dtype == np.int64


@pytest.mark.parametrize("first", [2**24, 2**40, 2**53 - 2])
def test_doubles_keep_every_whole_number(first):
    labels = torch.tensor([first, first + 1, first], dtype=torch.double)
    assert plain(labels) == [first, first + 1, first]


@pytest.mark.parametrize(
    "labels",
    [
        ["é", "a", "1"],
        ["e\u0301", "a", "1"],
        np.array(["é", "a", "1"], object),
        np.array(["é".encode(), "a", np.bytes_(b"1")], object),
        np.char.encode(np.array(["é", "a", "1"]), "utf-8"),
        np.array(["e\u0301".encode(), b"a", b"1"]),
    ],
)
def test_text_is_text_in_one_form(labels):
    assert plain(labels) == ["é", "a", "1"]


def test_bytes_that_are_no_text_stay_apart():
    assert plain(np.array([b"\xff", b"\xfe", b"a"])) == ["\\xff", "\\xfe", "a"]


def test_what_no_file_can_hold_is_an_escape_and_stays_apart():
    assert plain(["a", "a\0", b"a\0\0"]) == ["a", "a\\x00", "a\\x00\\x00"]
    assert plain(["\udcff", "\xff", b"\xff"]) == ["\\xff", "\xff", "\\xff"]
    assert plain(["a\0b", "b", "\0"]) == ["a\0b", "b", "\\x00"]


def test_text_of_numpy_2_and_text_beside_bytes_are_text():
    kind = getattr(np.dtypes, "StringDType", lambda: object)()
    assert plain(np.array(["é", "a", "1"], dtype=kind)) == ["é", "a", "1"]
    assert plain(["é", "é".encode(), "1"]) == ["é", "é", "1"]


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ([1, None, 2], "got None of NoneType in row 1"),
        ([1, float("nan"), 2], "got nan of float64"),
        (np.array(["a", np.nan, "b"], object), r"text and numbers, and none \(nan\) in row 1"),
        (np.array([0, 2**63, 1], np.uint64), "got 9223372036854775808 of uint64"),
        (np.ma.masked_equal([1, 0, 2], 0), "got a masked array"),
        (np.array([1, np.nan, 2], object), "got nan of float64"),
        ([0.5, 1, 2], "got 0.5 of float64"),
        ([1, float("inf"), 2], "got inf"),
        ([1e300, 1, 2], "got 1e.300"),
        (np.array(["a", 1, b"b"], object), "of one kind, got text and numbers"),
        ([[1], [2], [3]], r"got \(3, 1\) of int64"),
        ([[1], [2, 3]], "got list"),
        (torch.eye(3), r"got \(3, 3\)"),
        (3, r"got \(\) of int64"),
        ([1j, 2, 3], "of complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "of datetime64"),
        ([object(), 1, 2], "of object in row 0"),
        (["a", float("nan"), "b"], r"text and numbers, and none \(nan\) in row 1"),
        (("a", "1", 1), "of one kind, got text and numbers"),
        (["a", True, "b"], "of one kind, got text and numbers"),
        (["a", "\ud800", "b"], r"got .*ud800.*lone surrogate"),
        (torch.zeros(3, dtype=torch.int64, device="meta"), "a tensor without values"),
        (torch.tensor([1, 0, 2]).to_sparse(), "a sparse tensor"),
        (torch.nested.nested_tensor([torch.ones(1)] * 3, layout=torch.jagged), "a nested tensor"),
        ([10**30, 1, 2], "of object"),
    ],
)
def test_what_is_no_label_is_refused_in_one_line(labels, got):
    with pytest.raises(ValueError, match=f"labels must be three.*{got}") as error:
        plain(labels)
    assert "\n" not in str(error.value)


def test_two_kinds_of_labels_are_named():
    with pytest.raises(
        ValueError, match=r"query labels are integers.*\[1\].*gallery.* text.*\['1'"
    ):
        numbered([np.array([1, 2]), np.array(["1"])], ["query", "gallery"])


@given(st.lists(st.text(max_size=3), min_size=1), st.lists(st.text(max_size=3), min_size=1))
def test_two_sets_are_numbered_together(a, b):
    sides = [plain_labels(np.array(side, object), "") for side in (a, b)]
    (first, second), classes = numbered(sides, ["a", "b"])
    assert [classes[i] for i in first] == sides[0].tolist()
    assert [classes[i] for i in second] == sides[1].tolist()
    assert classes == sorted(set(classes))
