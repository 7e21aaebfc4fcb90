"""HDC: golden values, sorted lists from the formula, and slices that are searched as they learn."""

from itertools import combinations
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import batch, batches, gradient
from goldens import cases
from nearkin import models
from nearkin.losses import HDC
from nearkin.losses.hdc import share, unit_slices
from nearkin.tensors import slice_sizes, squared_distances, unit


def slices(x, count):
    return [unit(part).numpy() for part in x.split(slice_sizes(x.shape[1], count), 1)]


def slow(x, y, ratios, margin, factor, cascade):
    """The stages' losses from lists of pairs, in float64."""
    parts, y = slices(x, len(ratios)), y.tolist()
    pairs = list(combinations(range(len(y)), 2))
    kin = [p for p in pairs if y[p[0]] == y[p[1]]]
    others = [p for p in pairs if y[p[0]] != y[p[1]]]
    reached, losses = (kin, others), []
    for k, ratio in enumerate(ratios):
        judge = parts[max(k - 1, 0)] if cascade else parts[k]

        def square(pair, z=judge):
            return float(((z[pair[0]] - z[pair[1]]) ** 2).sum())

        near, far = reached if cascade else (kin, others)
        near = sorted(near, key=square)[::-1][: floor(round(ratio * len(kin), 9))]
        far = sorted(far, key=square)[: floor(round(ratio * len(others), 9))]
        reached = (near, far)
        own = [square(p, parts[k]) for p in near]
        own += [factor * max(0.0, margin - square(p, parts[k])) for p in far]
        losses.append(sum(own) / max(sum(value > 0 for value in own), 1))
    return losses


def built(options):
    ratios = ",".join(map(str, options["ratios"]))
    form = "released" if options["form"] == "released" else "right"
    return HDC(ratios, options["margin"], options["factor"], options["cascade"], form)


@pytest.mark.parametrize("case", cases("hdc"))
def test_golden_values(case):
    x = torch.tensor(case["inputs"]["x"], dtype=torch.float64, requires_grad=True)
    y, expected = torch.tensor(case["inputs"]["y"]), case["expected"]
    sizes = case["options"]["slices"]
    assert slice_sizes(x.shape[1], len(sizes)) == tuple(sizes)
    loss = built(case["options"])
    found = [value.item() for value in loss.stages(x, y)]
    assert found == pytest.approx(expected["stages"], abs=1e-9)
    value = loss(x, y)
    assert value.item() == pytest.approx(expected["loss"], abs=1e-9)
    (found,) = torch.autograd.grad(value, x)
    theirs = torch.tensor(case["gradient"], dtype=torch.float64)
    parts = zip(theirs.split(sizes, 1), x.detach().split(sizes, 1), strict=True)
    tangent = [g - (g * z).sum(1, keepdim=True) * z for g, z in parts]  # ours normalises inside
    torch.testing.assert_close(found, torch.cat(tangent, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", cases("hdc-test-distance"))
def test_a_distance_is_the_weighted_sum_of_those_of_the_slices(case):
    x = torch.tensor(case["inputs"]["x"], dtype=torch.float64)
    weights = case["options"]["weights"]
    parts = zip(weights, x.split(slice_sizes(x.shape[1], len(weights)), 1), strict=True)
    whole = torch.cat([weight * unit(part) for weight, part in parts], 1)
    i, j = case["inputs"]["pair"]
    expected = case["expected"]["squared_distance"]
    assert squared_distances(whole)[i, j].item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    dim=st.integers(6, 9),  # slices of two numbers: no ties
    seed=st.integers(0, 99),
    ratios=st.sampled_from([[1.0, 0.5, 0.2], [1.0, 1.0, 1.0], [0.4, 0.7], [1.0]]),
    cascade=st.booleans(),
)
def test_is_the_formula_in_lists(labels, dim, seed, ratios, cascade):
    x = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(seed)).double()
    y = torch.tensor(labels)
    loss = HDC(",".join(map(str, ratios)), 1.2, 3.0, cascade)
    found = [value.item() for value in loss.stages(x, y)]
    assert found == pytest.approx(slow(x, y, ratios, 1.2, 3.0, cascade), abs=1e-9)
    assert loss(x, y).item() == pytest.approx(sum(found), abs=1e-9)


def test_all_pairs_of_one_slice_are_the_squared_contrastive_loss():
    x, y = batch([3, 3, 2], dim=4)
    square = squared_distances(unit(x))
    kin = (y[:, None] == y).triu(1)
    hinge = (1 - square).clamp_min(0)[(y[:, None] != y).triu()]
    whole = square[kin].sum() + hinge.sum()
    count = int(kin.sum() + (hinge > 0).sum())
    torch.testing.assert_close(HDC("1", factor=1.0)(x, y), whole / count)


def test_without_cascade_slices_do_not_see_each_other():
    x, y = batch([4, 3, 3], dim=9)
    turned = torch.cat([x[:, 6:], x[:, :6]], 1)
    first = [v.item() for v in HDC("0.5,0.5,0.5").stages(x, y)]
    second = [v.item() for v in HDC("0.5,0.5,0.5").stages(turned, y)]
    assert second == pytest.approx([first[2], first[0], first[1]])
    cascaded = [v.item() for v in HDC("0.5,0.5,0.5", cascade=True).stages(x, y)]
    assert cascaded[0] == pytest.approx(first[0])
    assert cascaded[1] != pytest.approx(first[1])


@pytest.mark.parametrize("cascade", [False, True])
def test_gradcheck_away_from_switches(cascade):
    for dim in (6, 7):
        x, y = batch([4, 3, 2], dim=dim)
        loss = HDC(cascade=cascade)
        assert torch.autograd.gradcheck(lambda x, f=loss, y=y: f(x, y), (x.requires_grad_(),))


def test_the_released_layer_has_a_gradient_of_its_own():
    """Half of the true one for kin, a quarter for others: the value counts others twice."""
    x, y = batch([2, 2], dim=4)
    square = squared_distances(unit(x))
    pairs = torch.triu_indices(4, 4, 1)
    kin, d = y[pairs[0]] == y[pairs[1]], square[pairs[0], pairs[1]]
    released, w, m = HDC("1", form="released"), 10.0, 1.0
    hinge = (m - d[~kin]).clamp_min(0)
    count = kin.sum() + 2 * (hinge > 0).sum()
    value = (d[kin].sum() + 2 * w * hinge.sum()) / count
    torch.testing.assert_close(released(x, y), value)

    def surrogate(x):
        d = squared_distances(unit(x))[pairs[0], pairs[1]]
        return (d[kin].sum() / 2 + w * (m - d[~kin]).clamp_min(0).sum() / 2) / count

    x.requires_grad_()
    expected = torch.autograd.grad(surrogate(x), x)[0]
    torch.testing.assert_close(gradient(released, x.detach(), y), expected)


@settings(max_examples=60, deadline=None)
@given(case=batches(), cascade=st.booleans(), released=st.booleans())
def test_is_finite_on_batches_of_any_shape(case, cascade, released):
    x, y = case
    x = torch.cat([x, x.flip(1), x], 1)  # three slices at least
    loss = HDC(cascade=cascade and not released, form="released" if released else "right")
    value = loss(x, y)
    assert value.isfinite()
    assert value >= 0
    assert gradient(loss, x, y).isfinite().all()
    assert 0 <= loss.active(x, y) <= 1
    if len(y) == 1:
        assert value == 0


def test_a_share_of_pairs_is_rounded_down_without_the_noise_of_floats():
    assert [share(0.2, n) for n in (0, 4, 5, 14, 15)] == [0, 0, 1, 2, 3]
    assert share(0.29, 100) == 29
    assert share(0.1, 30) == 3


def test_too_few_kin_leave_a_slice_without_them():
    """Two pairs of kin: a fifth of them is none."""
    x, y = batch([2, 2], dim=6)
    apart = torch.eye(2).double()[y]
    x = torch.cat([x[:, :4], apart], 1)  # the third slice has no loss of others either
    assert HDC().stages(x, y)[2] == 0
    assert (gradient(HDC(), x, y)[:, 4:] == 0).all()


def test_kin_at_one_point_do_not_count():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]).double()
    y = torch.tensor([0, 0, 0, 1])
    loss = HDC("1", factor=1.0)
    assert loss(x, y).item() == pytest.approx((0.8 + 0.8 + 0.6) / 3)


def test_unit_slices_are_those_of_a_staged_head():
    head = models.make("linear", {"stages": 3}, (10,), 8)
    assert head.slices == slice_sizes(8, 3) == (2, 2, 4)
    x = head(torch.randn(5, 10))
    parts = unit_slices(x, 3)
    for part, own in zip(parts, x.split(head.slices, 1), strict=True):
        torch.testing.assert_close(part[:, : own.shape[1]], own)
        assert (part[:, own.shape[1] :] == 0).all()
    torch.testing.assert_close(unit(x) * 3**0.5, x)  # cosine and Euclidean agree


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratios": "1,0"}, r"numbers in \(0, 1\] such as 1,0.5,0.2, got '1,0'"),
        ({"ratios": "1,1.5"}, "got '1,1.5'"),
        ({"ratios": "1,half"}, "got '1,half'"),
        ({"ratios": ""}, "got ''"),
        ({"margin": 0.0}, "margin must be a number above 0"),
        ({"factor": -1.0}, "factor must be a number above 0"),
        ({"form": "printed"}, "did you mean"),
        ({"form": "released", "cascade": True}, "never cascades"),
    ],
)
def test_options_are_strict(options, said):
    with pytest.raises(ValueError, match=said):
        HDC(**options)
    x, y = batch([2, 2], dim=2)
    with pytest.raises(ValueError, match="wanted 1 to 2 slices of 2 numbers, got 3"):
        HDC()(x, y)


def test_active_is_the_share_of_others_within_the_margin():
    x, y = batch([4, 4, 4], dim=6)
    shares = []
    for part in slices(x, 3):
        d = squared_distances(torch.from_numpy(np.ascontiguousarray(part)))
        shares.append(float((d < 1)[y[:, None] != y].double().mean()))
    assert HDC().active(x, y).item() == pytest.approx(sum(shares) / 3)
