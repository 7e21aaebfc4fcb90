"""Closed forms as estimators: streaming, invariances, edges, errors."""

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator

from nearkin.closed import FORMS, PLDA, UNLABELLED, ClosedForm, Items, Moments, moments, powered
from nearkin.closed.neighbours import thinned

LABELLED = [form for form in FORMS if form not in UNLABELLED]
WHITENING = [form for form in FORMS if form not in ("power", "pca")]
SUMMED = [form for form in FORMS if form not in ("lfda", "nca")]


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    """10 classes of 12 to 21 points in 7 dimensions of different scales."""
    random = np.random.default_rng(3)
    y = np.repeat(np.arange(10), np.arange(12, 22))
    scale = np.array([5.0, 3, 1, 1, 0.5, 0.2, 0.1])
    x = random.normal(size=(10, 7))[y] * scale + random.normal(size=(len(y), 7))
    order = random.permutation(len(y))
    return x[order], y[order]


def distances(z: np.ndarray) -> np.ndarray:
    return np.linalg.norm(z[:, None] - z[None], axis=2)


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """The same but for a rotation."""
    return np.allclose(distances(a), distances(b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_is_an_estimator_of_scikit_learn(form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # of array libraries that are not there
        check_estimator(ClosedForm(form))


def test_plda_is_an_estimator_of_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        check_estimator(PLDA())


@pytest.mark.parametrize("form", FORMS)
def test_transform_is_the_linear_map_of_the_powers(form, points):
    x, y = points
    fitted = ClosedForm(form, dim=7, power=0.7).fit(x, y)
    z = fitted.transform(x)
    assert z.dtype == np.float32
    assert z.shape == (len(x), 7)
    expected = np.sign(x) * np.abs(x) ** 0.7 @ fitted.map_.weight.T + fitted.map_.bias
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)
    names = fitted.get_feature_names_out()
    assert list(names) == [f"closedform{i}" for i in range(7)]


def test_power():
    x = np.array([[-8.0, 27.0, 0.0]])
    assert powered(x.copy(), 1 / 3) == pytest.approx(np.array([[-2.0, 3.0, 0.0]]))
    assert powered(x.copy(), 0.5) == pytest.approx(np.sign(x) * np.sqrt(np.abs(x)))
    assert powered(x.copy(), 1.0) == pytest.approx(x)
    assert ClosedForm("power", power=0.5).fit_transform(x.repeat(2, 0))[0] == pytest.approx(
        powered(x, 0.5)[0]
    )


def test_moments_from_the_formulas(points):
    x, y = points
    found = Moments.of(x.copy(), y)
    mean = sum(x) / len(x)
    within, between = np.zeros((2, 7, 7))
    for label in range(10):
        of_class = x[y == label]
        centre = sum(of_class) / len(of_class)
        for item in of_class:
            within += np.outer(item - centre, item - centre) / len(x)
            between += np.outer(centre - mean, centre - mean) / len(x)
    np.testing.assert_allclose(found.mean, mean)
    np.testing.assert_allclose(found.within, within)
    np.testing.assert_allclose(found.between, between)
    np.testing.assert_allclose(found.unlabelled.within, np.cov(x.T, bias=True))
    assert (found.items, found.features) == (len(x), 7)
    quartic = sum(np.sum((a - found.means[b]) ** 2) ** 2 for a, b in zip(x, y, strict=True))
    assert Items(x, y).quartic(found) == pytest.approx(quartic)
    around = sum(np.sum((a - mean) ** 2) ** 2 for a in x)
    assert Items(x, y + 3).quartic(found.unlabelled) == pytest.approx(around)


@pytest.mark.parametrize("form", SUMMED)
def test_blocks_in_any_order_give_the_whole(form, points):
    """Classes come and go from block to block."""
    x, y = points
    whole = ClosedForm(form, power=0.5).fit(x, y)
    for order in (np.arange(len(y)), np.argsort(y)):
        streamed = ClosedForm(form, power=0.5)
        for rows in np.array_split(order, 9):
            streamed.partial_fit(x[rows], y[rows])
        np.testing.assert_allclose(streamed.map_.weight, whole.map_.weight, atol=1e-9)
        np.testing.assert_allclose(streamed.transform(x), whole.transform(x), atol=1e-5)


def test_partial_fit_goes_on_after_the_map_was_used(points):
    x, y = points
    streamed = ClosedForm("lda").partial_fit(x[:60], y[:60])
    before = streamed.transform(x)
    after = streamed.partial_fit(x[60:], y[60:]).transform(x)
    np.testing.assert_allclose(after, ClosedForm("lda").fit(x, y).transform(x), atol=1e-5)
    assert not np.allclose(before, after)


@pytest.mark.parametrize("form", FORMS)
def test_a_set_is_read_block_by_block(form, points, monkeypatch):
    x, y = points
    options = {"steps": 2} if form == "nca" else {}  # more, and rounding sends L-BFGS elsewhere
    whole = ClosedForm(form, options=options).fit(x, y)
    for module in ("moments", "estimator"):
        monkeypatch.setattr(f"nearkin.closed.{module}.BLOCK", 16)
    monkeypatch.setattr("nearkin.closed.neighbours.ANCHORS", 16)
    again = ClosedForm(form, options=options).fit(x, y)
    np.testing.assert_allclose(again.map_.weight, whole.map_.weight, atol=1e-6)
    np.testing.assert_allclose(again.transform(x), whole.transform(x), atol=1e-5)


@pytest.mark.parametrize("form", [*SUMMED, "lfda", "ledoit-wolf"])
def test_a_memory_map_is_read_in_bounded_memory(form, tmp_path, monkeypatch):
    """A tenth of what the set would take in float64."""
    random = np.random.default_rng(0)
    x = np.memmap(tmp_path / "x", np.float16, "w+", shape=(100_000, 32))
    for rows in np.split(np.arange(len(x)), 10):
        x[rows] = random.normal(size=(len(rows), 32))
    y = np.arange(len(x)) % 1000
    for module in ("moments", "estimator"):
        monkeypatch.setattr(f"nearkin.closed.{module}.BLOCK", 2000)
    named: dict[str, Any] = (
        {"shrinkage": form, "form": "whitened"} if form == "ledoit-wolf" else {"form": form}
    )
    estimator = ClosedForm(dim=32, **named)
    tracemalloc.start()
    estimator.fit(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    labels = 3 * y.nbytes  # counted, sorted, checked
    assert peak - labels < 0.1 * x.size * 8


@pytest.mark.parametrize("form", WHITENING)
def test_rotation_changes_nothing(form, points):
    x, y = points
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    plain, turned = (ClosedForm(form, dim=3).fit_transform(a, y) for a in (x, x @ turn))
    assert alike(plain, turned)


@pytest.mark.parametrize("form", WHITENING)
def test_scale_and_shift_change_nothing(form, points):
    """Of whitened features; what regression predicts does not change with their unit either."""
    x, y = points
    plain, other = (ClosedForm(form, dim=3).fit_transform(a, y) for a in (x, 1000 * x - 7))
    assert alike(plain, other)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("plda", "nca", "lfda")])
def test_a_set_twice_is_the_set(form, points):
    """In the other three, an item is then a neighbour of itself, or a class better known."""
    x, y = points
    once = ClosedForm(form, dim=7).fit(x, y)
    twice = ClosedForm(form, dim=7).fit(np.tile(x, (2, 1)), np.tile(y, 2))
    np.testing.assert_allclose(once.map_.weight, twice.map_.weight, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 0.5, "oas", "ledoit-wolf"])
@pytest.mark.parametrize("form", WHITENING)
def test_fewer_items_than_features(form, shrinkage):
    """Without shrinkage, directions of which nothing is known become 0."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, 30)), np.repeat([0, 1, 2], 4)
    fitted = ClosedForm(form, dim=30, shrinkage=shrinkage).fit(x, y)
    z = fitted.transform(random.normal(size=(50, 30)))
    assert np.isfinite(z).all()
    assert np.abs(z).max() < 1e3
    assert np.ptp(z, axis=0).max() > 0


@pytest.mark.parametrize("form", WHITENING)
def test_constant_features_stay_out_of_it(form, points):
    x, y = points
    constant = np.concatenate([x, np.full((len(x), 1), 3.0)], 1)
    plain = ClosedForm(form, dim=3, shrinkage=0.0).fit_transform(x, y)
    assert alike(plain, ClosedForm(form, dim=3, shrinkage=0.0).fit_transform(constant, y))
    shrunk = ClosedForm(form, dim=3).fit_transform(constant, y)
    assert np.isfinite(shrunk).all()


@pytest.mark.parametrize("form", LABELLED)
def test_one_class_and_classes_of_one_item_are_refused(form, points):
    x, _ = points
    with pytest.raises(ValueError, match="wanted two classes or more, got 1"):
        ClosedForm(form).fit(x, np.zeros(len(x), int))
    with pytest.raises(ValueError, match="wanted two different items of some class"):
        ClosedForm(form).fit(x, np.arange(len(x)))


@pytest.mark.parametrize("form", LABELLED)
def test_some_classes_may_have_one_item(form, points):
    x, y = points
    y = np.where(np.arange(len(y)) < 5, 100 + np.arange(len(y)), y)
    assert np.isfinite(ClosedForm(form).fit_transform(x, y)).all()


@pytest.mark.parametrize("form", WHITENING)
def test_items_that_are_all_the_same_are_refused(form):
    with pytest.raises(ValueError, match=r"wanted (items that differ|two different items)"):
        ClosedForm(form).fit(np.ones((6, 3)), [0, 0, 0, 1, 1, 1])


def test_within_class_whitening_makes_the_spread_of_classes_round(points):
    x, y = points
    z = ClosedForm("whitened", shrinkage=0.0).fit_transform(x, y).astype(float)
    np.testing.assert_allclose(Moments.of(z, y).within, np.eye(7), atol=1e-4)


def test_discriminants_beyond_the_classes_are_of_the_largest_variance_left(points):
    x, y = points
    few = y % 3
    fitted = ClosedForm("lda", dim=7, shrinkage=0.4).fit(x, few)
    z = fitted.transform(x).astype(float)
    np.testing.assert_allclose(Moments.of(z.copy(), few).between[2:], 0, atol=1e-8)
    rest = Moments.of(z, few).within[2:, 2:]
    np.testing.assert_allclose(rest, np.diag(np.sort(np.diag(rest))[::-1]), atol=1e-6)


def test_a_form_of_fewer_directions_than_asked_for_ends_in_zeros(points):
    x, y = points
    for form in ("plda", "kissme", "regression"):
        z = ClosedForm(form, dim=7).fit_transform(x, y % 3)
        assert (np.ptp(z, axis=0) > 1e-6).tolist() == [True] * 2 + [False] * 5


def test_many_items_are_thinned_evenly():
    y = np.repeat([0, 1, 2], [50, 100, 150])
    few = thinned(Items(np.arange(300.0)[:, None], y), 30)
    assert np.bincount(few.labels).tolist() == [5, 10, 15]
    assert few.x[:, 0].tolist() == sorted(set(few.x[:, 0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "whitning"}, "unknown closed form 'whitning': did you mean 'whitened'"),
        (
            {"form": "kissme", "options": {"contrast": 1.5}},
            r"contrast must be in \[0, 1\], got 1.5",
        ),
        ({"dim": 8}, "dim must be from 1 to the 7 features, got 8"),
        ({"dim": 0}, "dim must be from 1 to the 7 features, got 0"),
        ({"power": 0.0}, "power must be above 0, and finite, got 0.0"),
        ({"shrinkage": -1.0}, "shrinkage must be a share of 0 or more, oas or ledoit-wolf, got -1"),
        ({"shrinkage": "oass"}, "shrinkage must be a share of 0 or more, oas or ledoit-wolf"),
        ({"shrinkage": np.nan}, "shrinkage must be a share of 0 or more"),
        ({"form": "pca", "shrinkage": 1.0}, "closed form 'pca' has no shrinkage, got 1.0"),
        ({"form": "power", "dim": 3}, "leaves 7 features as many, got dim=3"),
        ({"form": "lfda", "options": {"neighbors": 3}}, "did you mean 'neighbours'"),
        ({"form": "lfda", "options": {"neighbours": 0}}, "neighbours must be 1 or more, got 0"),
        ({"form": "nca", "options": {"decay": -1.0}}, "wanted steps and decay of 0 or more"),
        ({"dim": 2.0}, "dim must be from 1 to the 7 features, got 2.0"),
        ({"dim": True}, "dim must be from 1 to the 7 features, got True"),
        ({"power": "1"}, "power must be above 0, and finite, got 1"),
        ({"shrinkage": [1]}, r"shrinkage must be a share .* got \[1\]"),
    ],
)
def test_errors_say_what_was_wanted(settings, message, points):
    with pytest.raises(ValueError, match=message):
        ClosedForm(**settings).fit(*points)


def test_classes_are_no_fractions(points):
    x, y = points
    with pytest.raises(ValueError, match=r"wanted classes as whole numbers or names, got 0\.5"):
        ClosedForm().fit(x, y + 0.5 * (y == 0))


@pytest.mark.parametrize(
    ("mangled", "said"),
    [
        (lambda x, y: (x, ["a", float("nan")] * (len(y) // 2)), r"none \(nan\) in row 1"),
        (lambda x, y: (x, ["1", 1] * (len(y) // 2)), "of one kind, got text and numbers"),
        (lambda x, y: (x, np.ma.masked_equal(y, 1)), "got a masked array"),
        (lambda x, y: (np.ma.masked_greater(x, 1), y), "X must be numbers, got a masked array"),
        (lambda x, y: (torch.empty(x.shape, device="meta"), y), "got a tensor without values"),
        (lambda x, y: (torch.tensor(x).to_sparse(), y), "got a sparse tensor"),
    ],
)
def test_what_scikit_learn_would_read_as_something_else_is_refused(mangled, said, points):
    with pytest.raises(ValueError, match=said) as error:
        ClosedForm().fit(*mangled(*points))
    assert "\n" not in str(error.value)


def test_tensors_that_hold_gradients_or_halves_are_items(points):
    x, y = points
    wanted = ClosedForm(dim=2).fit(x, y).transform(x)
    given = torch.tensor(x, requires_grad=True)
    found = ClosedForm(dim=2).fit(given, torch.tensor(y, dtype=torch.double)).transform(given)
    np.testing.assert_array_equal(found, wanted)
    half = ClosedForm(dim=2).fit(given.bfloat16(), y).transform(given.bfloat16())
    np.testing.assert_allclose(half, wanted, atol=0.2)


def test_a_summary_cannot_give_what_takes_all_items(points):
    for estimator in (ClosedForm("lfda"), ClosedForm("nca"), ClosedForm(shrinkage="ledoit-wolf")):
        with pytest.raises(ValueError, match="wanted all items at once, got a summary"):
            estimator.partial_fit(*points).transform(points[0])


def test_labels_may_be_names(points):
    x, y = points
    names = np.array(list("abcdefghij"))[y]
    for form in LABELLED:
        by_name, by_number = (ClosedForm(form, dim=2).fit(x, a) for a in (names, y))
        np.testing.assert_allclose(by_name.map_.weight, by_number.map_.weight)


def test_the_set_is_left_as_it_is(points):
    x, y = points
    before = x.copy()
    for form in FORMS:
        ClosedForm(form, power=0.5).fit(x, y).transform(x)
        np.testing.assert_array_equal(x, before)
    assert moments.BLOCK > 0


@pytest.mark.parametrize("form", ["whitened", "lda", "kissme", "nca"])
def test_coordinates_make_the_shrunk_spread_of_classes_the_identity(form, points):
    x, y = points
    coordinates = ClosedForm(form, shrinkage=0.5).fit(x, y).map_.coordinates
    within = Moments.of(x.copy(), y).within
    shrunk = within + 0.5 * np.trace(within) / 7 * np.eye(7)
    np.testing.assert_allclose(coordinates @ shrunk @ coordinates.T, np.eye(7), atol=1e-9)
    if form in ("lda", "kissme"):
        between = coordinates @ Moments.of(x.copy(), y).between @ coordinates.T
        np.testing.assert_allclose(between, np.diag(np.diag(between)), atol=1e-9)
        assert (np.diff(np.diag(between)) <= 1e-9).all()
