"""What every loss of the registry keeps: a formula, plain options, finite gradients, one call."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from batches import batch, batches, gradient
from nearkin.losses import LOSSES, Combined, Contrastive, Triplet, TupleRatio, TupleTriplet, make
from nearkin.names import resolve

OF_THE_BATCH = ["contrastive", "ratio-triplet", "triplet", "combined"]
OF_THE_BATCH += ["fisher-nca", "lifted-structure", "n-pair", "tuple-ratio", "tuple-triplet"]
MINED = ["contrastive", "ratio-triplet", "triplet"]


def built(name):
    torch.manual_seed(0)
    options = {"heads": 1} if name == "graph-refinement" else {}  # heads divide the size
    return make(name, options, classes=40, dim=3).double()


@pytest.mark.parametrize("name", LOSSES)
def test_has_tests_and_a_documented_formula(name):
    loss = resolve(LOSSES[name])
    text = inspect.getdoc(loss) or ""
    assert "Source:" in text, f"{loss.__name__} does not say where it comes from"
    assert re.search(r"^ +(loss|L|right|L\^\w) *[=:]", text, re.MULTILINE), "no formula"
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    assert any(loss.__name__ in text for text in tests), "no test names it"


@pytest.mark.parametrize("name", LOSSES)
def test_takes_plain_options_only(name):
    for parameter in inspect.signature(resolve(LOSSES[name])).parameters.values():
        if parameter.name in ("classes", "dim", "args", "kwargs", "options"):
            continue
        assert isinstance(parameter.default, str | int | float | bool | None), parameter


@pytest.mark.parametrize("name", LOSSES)
def test_passes_gradcheck(name):
    x, y = batch([3, 3, 2, 1])
    loss = built(name).eval()
    assert torch.autograd.gradcheck(lambda x: loss(x, y), (x.requires_grad_(),))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2], [0, 0, 1, 1]])
@pytest.mark.parametrize("kind", ["random", "collapsed", "zero"])
def test_is_finite_on_odd_batches(name, labels, kind):
    x, _ = batch([len(labels)])
    x = {"random": x, "collapsed": x[:1].repeat(len(x), 1), "zero": torch.zeros_like(x)}[kind]
    x.requires_grad_()
    y, criterion = torch.tensor(labels, dtype=torch.long), built(name)
    loss = criterion(x, y)
    loss.backward()
    assert loss.ndim == 0
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    active = getattr(criterion, "active", None)
    assert active is None or 0 <= active(x.detach(), y) <= 1


@pytest.mark.parametrize("name", LOSSES)
def test_labels_are_one_integer_for_each_embedding(name):
    x, y = batch([3, 3])
    loss = built(name).eval()
    torch.testing.assert_close(loss(x, y.int()), loss(x, y))
    for wrong in (y[:1], y[:5], y[:, None], y.double()):
        with pytest.raises(ValueError, match="integers"):
            loss(x, wrong)
    for embeddings, labels, said in (
        (x[0], y, r"embeddings must be floats \(B, D\)"),
        (x[None], y, r"got \(1, 6, 3\)"),
        (x.long(), y, "int64"),
        (x.numpy(), y, "embeddings must be a torch.Tensor, got ndarray"),
        (x, y.tolist(), "labels must be a torch.Tensor, got list"),
    ):
        with pytest.raises(ValueError, match=said):
            loss(embeddings, labels)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("where", ["alone", "under autocast"])
def test_half_precision_is_computed_in_float32(name, kind, where):
    x, y = batch([3, 3, 2])
    x[1] = 0
    x, loss = x.to(kind), built(name).float().eval()
    with torch.autocast("cpu", kind, enabled=where != "alone"):
        value = loss(x, y)
    assert value.dtype == torch.float32
    near = 0.02 if name == "graph-refinement" and where != "alone" else 1e-5  # layers are cast
    torch.testing.assert_close(value, loss(x.float(), y), rtol=near, atol=near)


@pytest.mark.parametrize("name", OF_THE_BATCH)
@settings(max_examples=30, deadline=None)
@given(case=batches())
def test_a_batch_with_nothing_to_learn_from_gives_0_with_zero_gradient(name, case):
    x, y = case
    kinds, sizes = y.unique(return_counts=True)
    enough = {"contrastive": len(y) > 1, "ratio-triplet": len(kinds) > 1 and sizes.max() > 1}
    enough["triplet"] = enough["lifted-structure"] = enough["ratio-triplet"]
    enough["fisher-nca"] = enough["triplet"] or sizes.max() > 2  # one class can be made round
    if enough.get(name, (sizes > 1).sum() > 1):
        return
    assert built(name)(x, y).abs() < 1e-12
    assert gradient(built(name), x, y).abs().max() < 1e-12


@pytest.mark.parametrize("name", sorted(set(OF_THE_BATCH) - set(MINED)))
def test_a_loss_over_tuples_refuses_a_miner(name):
    x, y = batch([3, 3])
    pairs = (torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(ValueError, match="takes no miner"):
        built(name)(x, y, pairs)


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_does_not_depend_on_the_names_of_the_classes(name):
    x, y = batch([4, 3, 2])
    torch.testing.assert_close(built(name)(x, y), built(name)(x, 10**6 - 7 * y))


def test_unknown_names_and_options_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'ratio-triplet'"):
        make("ratio-triplt")
    with pytest.raises(ValueError, match=r"unknown option of contrastive 'margn'.*'margin'"):
        make("contrastive", {"margn": 1.0})
    with pytest.raises(ValueError, match="wanted a value of type float"):
        make("contrastive", {"margin": "wide"})


@settings(max_examples=30, deadline=None)
@given(case=batches())
def test_combined_is_the_weighted_sum_of_its_terms(case):
    x, y = case
    terms = "tuple-triplet + 0.5*tuple-ratio + 2e+0 * contrastive"
    parts = [built("tuple-triplet"), built("tuple-ratio"), built("contrastive")]
    by_hand = sum(w * loss(x, y) for w, loss in zip((1, 0.5, 2), parts, strict=True))
    torch.testing.assert_close(Combined(terms)(x, y), by_hand)


def test_terms_are_a_weight_and_a_name():
    with pytest.raises(ValueError, match="did you mean 'triplet'"):
        Combined("tripelt")
    with pytest.raises(ValueError, match=r"got 'much \* triplet'"):
        Combined("much * triplet")
    with pytest.raises(ValueError, match=r"got 'nan \* triplet'"):
        Combined("nan * triplet")


def test_options_of_combined_reach_its_terms():
    terms = {"terms": "tuple-ratio + 2 * contrastive + pml:CircleLoss + arcface"}
    given = {"contrastive.margin": 0.5, "tuple-ratio.form": "printed", "pml:CircleLoss.m": 0.1}
    loss = make("combined", {**terms, **given, "arcface.scale": 3}, classes=3, dim=3)
    assert isinstance(loss, Combined)
    parts: list[Any] = list(loss.losses)
    _, contrastive, circle, arcface = parts
    assert contrastive.margin == 0.5
    assert (circle.loss.m, arcface.loss.scale) == (0.1, 3)
    x, y = batch([4, 3, 2])
    by_hand = TupleRatio("printed")(x, y) + 2 * Contrastive(0.5)(x, y) + circle(x, y)
    torch.testing.assert_close(loss(x, y), by_hand + arcface(x, y))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"triplet.margn": 1.0}, "unknown option of triplet 'margn': did you mean 'margin'"),
        ({"triplet.margin": "wide"}, "option of triplet 'margin': wanted a value of type float"),
        ({"tripelt.margin": 1.0}, r"option of combined 'tripelt.margin': .* 'triplet\.OPTION'"),
        ({"margin": 1.0}, r"unknown option of combined 'margin': .* triplet\.OPTION"),
        ({"trems": "triplet"}, "unknown option of combined 'trems': did you mean 'terms'"),
        ({"cross-entropy.dim": 7}, "option of cross-entropy 'dim': wanted 3, .* got 7"),
        ({"dim": 7}, "option of combined 'dim': wanted 3, .* got 7"),
    ],
)
def test_options_of_combined_are_strict(options, said):
    with pytest.raises(ValueError, match=said):
        make("combined", {"terms": "triplet + cross-entropy"} | options, classes=3, dim=3)


@pytest.mark.parametrize(
    "name", ["cross-entropy", "group", "graph-refinement", "normalised-cross-entropy", "proxy-gml"]
)
def test_an_option_that_contradicts_the_run_is_refused(name):
    with pytest.raises(ValueError, match=f"option of {name} 'dim': wanted 64, .* got 8"):
        make(name, {"dim": 8}, classes=10, dim=64)
    with pytest.raises(ValueError, match=f"option of {name} 'classes': wanted 10, .* got 3"):
        make(name, {"classes": 3}, classes=10, dim=64)
    make(name, {"dim": 64, "classes": 10}, classes=10, dim=64)


def test_combined_is_active_where_its_terms_are_in_the_mean():
    x, y = batch([4, 3, 2])
    loss = Combined("tuple-triplet + cross-entropy + 0.5 * triplet", classes=3, dim=3)
    shares = [float(loss.active(x, y)) for loss in (TupleTriplet(), Triplet())]
    assert shares[0] != shares[1]
    assert loss.active(x, y) == pytest.approx(sum(shares) / 2)
    assert loss.active(x[:1].repeat(len(x), 1), y) == 1
    assert not hasattr(Combined("cross-entropy", classes=3, dim=3), "active")
