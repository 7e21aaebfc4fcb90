"""What every loss of the registry keeps: a formula, plain options, finite gradients, one call."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from batches import batch, batches, gradient
from nearkin.losses import (
    LOSSES,
    Combined,
    Contrastive,
    Memory,
    Triplet,
    TupleRatio,
    TupleTriplet,
    make,
    parameters,
    wants_features,
)
from nearkin.losses.protocol import takes_references
from nearkin.names import look_up
from nearkin.registry import METRICS

OF_THE_BATCH = ["contrastive", "ratio-triplet", "triplet", "combined"]
OF_THE_BATCH += [
    "clustering",
    "fisher-nca",
    "lifted-structure",
    "n-pair",
    "tuple-ratio",
    "tuple-triplet",
]
MINED = ["contrastive", "ratio-triplet", "triplet"]
OWN_CLASSES = {"arcface", "cross-entropy", "graph-refinement", "group", "margin"}
OWN_CLASSES |= {"hdml", "hierarchical-triplet"}
OWN_CLASSES |= {"normalised-cross-entropy", "proxy-anchor", "proxy-gml", "proxy-nca", "soft-triple"}


def built(name):
    torch.manual_seed(0)
    options = {"heads": 1} if name == "graph-refinement" else {}  # heads divide the size
    loss = make(name, options, classes=40, dim=3, features=3).double()
    return OnItself(loss) if wants_features(name) else loss


class OnItself(nn.Module):
    """A loss that wants features and a head: the embeddings themselves, and none."""

    def __init__(self, loss: Any):
        super().__init__()
        self.loss, self.metric = loss, loss.metric

    def forward(self, x, *given):
        return self.loss(x, *given, features=x, head=nn.Identity())


COMPARES = [name for name in LOSSES if takes_references(built(name))]


@pytest.mark.parametrize("name", LOSSES)
def test_has_tests_and_a_documented_formula(name):
    loss = look_up(name, LOSSES, "loss")
    text = inspect.getdoc(loss) or ""
    assert "Source:" in text, f"{loss.__name__} does not say where it comes from"
    assert re.search(r"^ +(loss|L|right|L\^\w) *[=:]", text, re.MULTILINE), "no formula"
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    assert any(loss.__name__ in text for text in tests), "no test names it"


@pytest.mark.parametrize("name", LOSSES)
def test_takes_plain_options_only(name):
    for parameter in inspect.signature(look_up(name, LOSSES, "loss")).parameters.values():
        if parameter.name in ("classes", "dim", "features", "args", "kwargs", "options"):
            continue
        assert isinstance(parameter.default, str | int | float | bool | None), parameter


@pytest.mark.parametrize("name", [name for name in LOSSES if not wants_features(name)])
def test_passes_gradcheck(name):
    x, y = batch([3, 3, 2, 1])
    loss = built(name).eval()

    def value(x):
        torch.manual_seed(0)  # of the miner that draws triplets
        return loss(x, y)

    assert torch.autograd.gradcheck(value, (x.requires_grad_(),))


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
    for same in (y.int(), y.to(torch.uint8), y.numpy(), y.int().numpy(), y.tolist(), y.double()):
        torch.manual_seed(0)
        value = loss(x, same)
        torch.manual_seed(0)
        torch.testing.assert_close(value, loss(x, y))
    for wrong in (y[:1], y[:5], y[:, None], y + 0.5, y.numpy() + 0.5, y.tolist()[:5]):
        with pytest.raises(ValueError, match="integers"):
            loss(x, wrong)
    for embeddings, labels, said in (
        (x[0], y, r"embeddings must be floats \(B, D\)"),
        (x[None], y, r"got \(1, 6, 3\)"),
        (x.long(), y, "int64"),
        (x.numpy(), y, "embeddings must be a torch.Tensor, got ndarray"),
        (x, [None] * 6, "labels must be 6 integers.*got None of NoneType in row 0"),
        (x, np.array(["a", 1, 1, 1, 1, 1], dtype=object), "6 integers.*got text and numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            loss(embeddings, labels)


TEXTS = ["tea", "cup", "café", "tea", "cup", "cafe\u0301"]
KINDS_OF_TEXT = {
    "list": TEXTS,
    "array": np.array(TEXTS),
    "objects": np.array(TEXTS, dtype=object),
    "bytes": [text.encode() for text in TEXTS],
    "some bytes": [TEXTS[0].encode(), *TEXTS[1:]],
}


@pytest.mark.parametrize("name", sorted(set(LOSSES) - OWN_CLASSES))
@pytest.mark.parametrize("labels", KINDS_OF_TEXT.values(), ids=KINDS_OF_TEXT)
def test_classes_may_be_texts(name, labels):
    x, _ = batch([6])
    loss = built(name)
    torch.testing.assert_close(loss(x, labels), loss(x, torch.tensor([0, 1, 2, 0, 1, 2])))


@pytest.mark.parametrize("name", sorted(OWN_CLASSES))
def test_a_loss_that_numbers_its_classes_takes_no_texts(name):
    x, _ = batch([6])
    with pytest.raises(ValueError, match=r"labels must be 6 integers,.* got .*return_inverse"):
        built(name)(x, TEXTS)


@pytest.mark.parametrize("name", LOSSES)
def test_float64_embeddings_are_taken_beside_float32_weights(name):
    x, y = batch([3, 3, 2])
    loss = built(name).float().eval()
    torch.manual_seed(0)
    value = loss(x.requires_grad_(), y)
    value.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.manual_seed(0)
    torch.testing.assert_close(value.float(), loss(x.detach().float(), y), rtol=1e-4, atol=1e-5)
    assert all(p.dtype == torch.float32 for p in loss.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_says_by_which_metric_it_is_judged(name):
    assert built(name).metric in METRICS


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_may_be_said_of_references_and_miners(name):
    x, y = batch([3, 3, 2])
    loss = built(name).eval()
    torch.manual_seed(0)
    value = loss(x, y, None, None, None)
    torch.manual_seed(0)
    torch.testing.assert_close(value, loss(x, y))
    if name in COMPARES and not getattr(loss, "miner", None):
        memory = Memory(loss, 8)
        torch.testing.assert_close(memory(x, y, None, None, None), value)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(COMPARES)))
def test_references_are_refused_by_losses_that_compare_none(name):
    x, y = batch([3, 3, 2])
    with pytest.raises(ValueError, match=r"takes no references|ref_emb is not supported"):
        built(name)(x, y, None, x + 1, y)


@pytest.mark.parametrize("name", COMPARES)
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("labels", [torch.int64, torch.int32, None])
def test_the_batch_as_its_own_references_is_the_batch(name, kind, labels):
    x, y = batch([3, 3, 2])
    x, y = x.to(kind), y.tolist() if labels is None else y.to(labels)
    loss = built(name)
    torch.manual_seed(0)
    value = loss(x, y)
    for references in (x, x.clone(), x.detach()):
        torch.manual_seed(0)
        torch.testing.assert_close(loss(x, y, None, references, y), value)
    other = loss(x, y, None, torch.cat([x, x[:1]]), [*torch.as_tensor(y).tolist(), int(y[0])])
    assert other != value


@pytest.mark.parametrize("name", COMPARES)
def test_references_are_checked_at_the_door(name):
    x, y = batch([3, 3, 2])
    loss = built(name)
    for references, labels, said in (
        (x, None, "go together"),
        (None, y, "go together"),
        (x[:, :2], y, r"ref_emb must be \(M, 3\).*got \(8, 2\)"),
        (x, y[:3], "ref_labels must be 8 integers"),
        (x.long(), y, "ref_emb must be floats"),
    ):
        with pytest.raises(ValueError, match=said):
            loss(x, y, None, references, labels)
    halves, values = (x + 1).half(), []
    for references in (halves, halves.float()):
        torch.manual_seed(0)
        values.append(loss(x.float(), y, None, references, y))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", MINED)
@pytest.mark.parametrize(
    ("mined", "said"),
    [
        (([0], [1]), "3 or 4 tensors of indices, got 2"),
        (([0], [1, 2], [3]), r"equally many, got \[\(1,\), \(2,\), \(1,\)\]"),
        (([0], [1], [8]), r"in 0\.\.7, got 8\.\.8"),
        (([0], [-1], [0], [1]), r"in 0\.\.7, got -1\.\.-1"),
        (([0.0], [1], [2]), "integers, got torch.float32"),
    ],
)
def test_a_choice_of_pairs_is_checked_at_the_door(name, mined, said):
    x, y = batch([3, 3, 2])
    with pytest.raises(ValueError, match=said):
        built(name)(x, y, tuple(map(torch.tensor, mined)))


OUT_OF_BOUNDS = {
    "arcface": [{"margin": -1.0}, {"margin": 200.0}, {"scale": 0.0}, {"rate": -1.0}],
    "clustering": [{"gamma": -1.0}, {"rounds": -1}],
    "contrastive": [{"margin": 0.0}, {"margin": -1.0}],
    "cross-entropy": [{"smoothing": 2.0}, {"rate": -0.1}],
    "fisher-nca": [{"sharpness": 0.0}, {"roundness": -1.0}, {"compactness": -1.0}],
    "group": [{"temperature": 0.0}, {"anchors": -1}, {"iterations": 0}, {"weight": -1.0}],
    "graph-refinement": [{"temperature": 0.0}, {"layers": 0}, {"smoothing": 2.0}],
    "hdc": [{"margin": 0.0}, {"factor": 0.0}],
    "hdml": [{"share": 1.5}, {"margin": -1.0}, {"l2": -1.0}, {"rate": -1.0}, {"alpha": -1.0}],
    "hierarchical-triplet": [{"beta": -1.0}, {"levels": 0}, {"margin": 0.0}],
    "lifted-structure": [{"margin": -5.0}],
    "margin": [{"margin": -0.1}, {"beta": 0.0}, {"cutoff": 0.0}],
    "multi-similarity": [{"alpha": 0.0}, {"beta": -1.0}, {"base": 3.0}],
    "n-pair": [{"l2": -1.0}],
    "normalised-cross-entropy": [{"temperature": 0.0}, {"temperature": -1.0}],
    "pml-contrastive": [{"neg_margin": -1.0}],
    "pml-n-pair": [{"embedding_reg_weight": -1.0}],
    "proxy-anchor": [{"margin": -0.1}, {"alpha": 0.0}],
    "proxy-gml": [{"weight": -1.0}, {"scale": 0.0}, {"ratio": 2.0}, {"proxies": 0}],
    "proxy-nca": [{"softmax_scale": 0.0}],
    "semi-hard-triplet": [{"margin": -5.0}, {"margin": 0.0}],
    "soft-triple": [{"centers_per_class": 1}, {"gamma": 0.0}, {"weight_reg_weight": -1.0}],
    "supcon": [{"temperature": 0.0}],
    "triplet": [{"margin": -5.0}],
    "pml:CircleLoss": [{"gamma": 0.0}],
    "pml:SubCenterArcFaceLoss": [{"sub_centers": -1}],
    "pml:TripletMarginLoss": [{"margin": -5.0}],
}


def test_every_loss_with_numbers_for_options_has_bounds():
    numbers = {
        name
        for name in LOSSES
        if any(isinstance(p.default, float) and "." not in o for o, p in parameters(name).items())
    }
    assert numbers <= OUT_OF_BOUNDS.keys()


@pytest.mark.parametrize(
    ("name", "options"), [(name, o) for name, found in OUT_OF_BOUNDS.items() for o in found]
)
def test_options_out_of_bounds_are_refused(name, options):
    ((option, _),) = options.items()
    with pytest.raises(ValueError, match=option) as error:
        make(name, options, classes=40, dim=4, features=5)
    assert "\n" not in str(error.value)
    nan = dict.fromkeys(options, float("nan"))
    if isinstance(options[option], float):
        with pytest.raises(ValueError, match=option):
            make(name, nan, classes=40, dim=4, features=5)


@pytest.mark.parametrize("name", LOSSES)
def test_its_state_is_tensors_alone(name):
    for loss in (built(name), Memory(Contrastive(), 4)):
        assert all(isinstance(value, torch.Tensor) for value in loss.state_dict().values())


@pytest.mark.parametrize("name", sorted(OWN_CLASSES))
def test_takes_the_names_that_its_peer_has_for_classes_and_dim(name):
    loss: Any = look_up(name, LOSSES, "loss")
    takes = inspect.signature(loss).parameters
    features = {"features": 5} if "features" in takes else {}
    torch.manual_seed(0)
    theirs = loss(num_classes=40, **({"embedding_size": 8} if "dim" in takes else {}), **features)
    torch.manual_seed(0)
    ours = loss(40, *([8] if "dim" in takes else []), **features)
    for (_, a), (_, b) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="one option, but both were given"):
        loss(classes=40, num_classes=40)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("where", ["alone", "under autocast"])
def test_half_precision_is_computed_in_float32(name, kind, where):
    x, y = batch([3, 3, 2])
    x[1] = 0
    x, loss = x.to(kind), built(name).float().eval()
    torch.manual_seed(0)
    with torch.autocast("cpu", kind, enabled=where != "alone"):
        value = loss(x, y)
    assert value.dtype == torch.float32
    torch.manual_seed(0)
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
    enough["clustering"] = 1 < len(kinds) < len(y)
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
