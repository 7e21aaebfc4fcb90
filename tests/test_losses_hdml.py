"""HDML: golden values, who learns from what, and constants that follow the losses."""

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batches import batch, batches
from goldens import cases
from nearkin.losses import HDML, Memory, make, param_groups, wants_features
from nearkin.losses.synthesis import chosen_triplets, n_pairs, pulled_in, triplets


def layer(weights) -> nn.Linear:
    w = torch.tensor(weights["w"], dtype=torch.float64)
    found = nn.Linear(w.shape[1], w.shape[0]).double()
    found.weight.data, found.bias.data = w, torch.tensor(weights["b"], dtype=torch.float64)
    return found


def of_case(case) -> tuple[HDML, nn.Linear, torch.Tensor, torch.Tensor, Any]:
    """The loss, head, features, labels and triplets of a golden case; no batch norm in it."""
    options, weights = case["options"], case["inputs"]["weights"]
    y = torch.tensor(case["inputs"]["y"], dtype=torch.float64)
    labels = torch.tensor(case["inputs"]["labels"])
    head, classifier = layer(weights["head"]), layer(weights["classifier"])
    first, second = layer(weights["g1"]), layer(weights["g2"])
    base = "n-pair" if "l2" in options else "triplet"
    loss = HDML(
        classifier.out_features,
        head.out_features,
        y.shape[1],
        base=base,
        form="released",
        alpha=options["alpha"],
        beta=options["beta"],
        share=options["lam"],
        margin=options.get("margin", 1.0),
        l2=options.get("l2", 0.0),
    ).double()
    loss.generator = nn.Sequential(first, nn.ReLU(), second)
    loss.classifier = classifier
    loss.constants = type(loss.constants)(
        False, options["alpha"], options["beta"], options["softmax_factor"]
    )
    mined = None
    if base == "triplet":
        mined = tuple(torch.arange(len(y)).chunk(3))
    return loss, head, y, labels, mined


@pytest.mark.parametrize("case", cases("hdml"))
def test_golden_values(case):
    loss, head, y, labels, mined = of_case(case)
    options, expected = case["options"], case["expected"]
    hardness = exp(-options["alpha"] / options["j_avg"])
    weight = exp(-options["beta"] / options["j_gen_before"])
    z = head(y)
    found = loss.parts(z, y, labels, head, hardness, weight, mined)
    assert found is not None
    values = {
        "recon": found.recon,
        "soft_ce": found.soft,
        "j_gen": found.generator,
        "j_m": found.real,
        "j_syn": found.synthetic,
        "j_metric": found.metric,
        "classifier_ce": found.classifier,
    }
    for name, value in values.items():
        if name in expected:
            assert value.item() == pytest.approx(expected[name], abs=1e-9), name
    (gradient,) = torch.autograd.grad(found.metric, head.weight, retain_graph=True)
    np.testing.assert_allclose(gradient, case["gradient_head_w"], rtol=0, atol=1e-6)
    read = triplets if mined is not None else n_pairs
    rows = read(z, labels, mined, hardness, loss.weight).rows
    pulled = torch.tensor(expected["pulled"], dtype=torch.float64)
    torch.testing.assert_close(rows[-pulled[..., 0].numel() :].reshape(pulled.shape), pulled)
    # the same with a generator through which no gradient flows to the embeddings
    with torch.no_grad():
        generated = loss.generator(rows)
    judged = read(z, labels, mined, hardness, loss.weight).judge(head(generated))
    metric = weight * found.real + (1 - weight) * judged
    (gradient,) = torch.autograd.grad(metric, head.weight)
    theirs = case["gradient_head_w_generator_detached"]
    np.testing.assert_allclose(gradient, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", cases("hdml-pull"))
def test_golden_pulls(case):
    a, p, n = (torch.tensor(case["inputs"][k]).double() for k in ("anchor", "positive", "negative"))
    hardness = exp(-case["options"]["alpha"] / case["options"]["j_avg"])
    distance = (pulled_in(a, p, n, hardness) - a).norm().item()
    assert distance == pytest.approx(case["expected"]["distance"], abs=1e-9)


def net(dim=3, features=5, seed=0, norm=False) -> nn.ModuleDict:
    torch.manual_seed(seed)
    trunk = nn.Linear(4, features)
    before = nn.BatchNorm1d(features) if norm else nn.Identity()
    head = nn.Sequential(before, nn.Linear(features, dim))
    return nn.ModuleDict({"trunk": trunk, "head": head}).double()


def built(classes=4, dim=3, features=5, seed=1, **options: Any) -> HDML:
    torch.manual_seed(seed)
    return HDML(classes, dim, features, hidden=6, **options).double()


def step(loss, model, x, y, mined=None):
    features = model["trunk"](x)
    z = model["head"](features)
    return loss(z, y, mined, features=features, head=model["head"])


BASES = ["n-pair", "triplet"]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("form", ["right", "released"])
def test_each_part_teaches_its_own(base, form):
    model, loss = net(), built(base=base, form=form)
    x, y = batch([4, 3, 4], dim=4)
    features = model["trunk"](x)
    parts = loss.parts(model["head"](features), features, y, model["head"], 0.5, 0.4)
    assert parts is not None
    owned = {
        "metric": [*model.parameters()],
        "generator": [*loss.generator.parameters()],
        "classifier": [*loss.classifier.parameters()],
    }
    for name, own in owned.items():
        for group in owned.values():
            found = torch.autograd.grad(
                getattr(parts, name), group, retain_graph=True, allow_unused=True
            )
            touched = [g is not None and bool((g != 0).any()) for g in found]
            assert all(touched) if group is own else not any(touched), name


@pytest.mark.parametrize("base", BASES)
def test_one_backward_pass_leaves_each_the_gradient_of_its_own_part(base):
    model, loss = net(norm=True), built(base=base)
    loss.steps.fill_(loss.window)
    loss.past.fill_(1.3)
    loss.first.fill_(2.0)
    loss.warm.fill_(True)
    hardness, weight = loss.constants_now()
    assert (hardness, weight) == pytest.approx((exp(-2 / 1.3), exp(-0.4 / 1.3)))
    x, y = batch([4, 3, 4], dim=4)
    features = model["trunk"](x)
    parts = loss.parts(model["head"](features), features, y, model["head"], hardness, weight)
    assert parts is not None
    everything = [*model.parameters(), *loss.parameters()]
    apart = torch.autograd.grad(parts.metric + parts.generator + parts.classifier, everything)
    together = torch.autograd.grad(step(loss, model, x, y), everything)
    for a, b in zip(apart, together, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("base", BASES)
def test_the_metric_term_passes_gradcheck_through_the_generator(base):
    model, loss = net(), built(base=base)
    x, y = batch([3, 2, 2], dim=4)
    start = model["head"](model["trunk"](x)).detach()

    def metric(z):
        parts = loss.parts(z, model["trunk"](x), y, model["head"], 0.5, 0.4)
        assert parts is not None
        return parts.metric

    assert torch.autograd.gradcheck(metric, (start.requires_grad_(),))


@torch.no_grad()
def test_slow_form_of_both_bases():
    """From the formulas, tuple by tuple, with a generator of the batch's own statistics."""
    model = net()
    x, y = batch([4, 3, 4], dim=4)
    features = model["trunk"](x).detach()
    z, hardness, weight = model["head"](features).detach(), 0.3, 0.25

    def pull(a, p, n):
        near, far = float((a - p).norm()), float((a - n).norm())
        return a + (n - a) * (near + hardness * (far - near)) / far if far > near else n

    triplet = built(base="triplet")
    a, p, n = (i.tolist() for i in chosen_triplets(y))
    moved = [pull(z[i], z[j], z[k]) for i, j, k in zip(a, p, n, strict=True)]
    rows = torch.stack([*z[a], *z[p], *moved])
    made = model["head"](triplet.generator(rows))
    one, two, three = made.chunk(3)
    expected = [0.0, 0.0]
    for t in range(len(a)):
        real = (z[a[t]] - z[p[t]]).square().sum() - (z[a[t]] - z[n[t]]).square().sum() + 1
        synthetic = (one[t] - two[t]).square().sum() - (one[t] - three[t]).square().sum() + 1
        expected[0] += max(float(real), 0.0)
        expected[1] += max(float(synthetic), 0.0)
    parts = triplet.parts(z, features, y, model["head"], hardness, weight)
    assert parts is not None
    assert [parts.real.item(), parts.synthetic.item()] == pytest.approx(expected)
    assert parts.metric.item() == pytest.approx(weight * expected[0] + (1 - weight) * expected[1])

    pairs = built(base="n-pair", l2=0.1)
    found = n_pairs(z, y, None, hardness, 0.1)
    count = 5  # 2 + 1 + 2 pairs
    made = model["head"](pairs.generator(found.rows))
    anchors, grid = made[:count], made[count:].unflatten(0, (count, count))
    kinds = found.labels[:count].tolist()
    total = 0.0
    for i in range(count):
        scores = [
            exp(float(anchors[i] @ grid[i, j]))
            for j in range(count)
            if i == j or kinds[i] != kinds[j]
        ]
        total -= log(exp(float(anchors[i] @ grid[i, i])) / sum(scores))
    lengths = anchors.square().sum(1).mean() + grid.square().sum(2).mean()
    parts = pairs.parts(z, features, y, model["head"], hardness, weight)
    assert parts is not None
    assert parts.synthetic.item() == pytest.approx(total / count + 0.1 / 4 * float(lengths))
    logits = pairs.classifier(pairs.generator(found.rows))
    each = nf.cross_entropy(logits, found.labels, reduction="none")
    assert parts.soft.item() == pytest.approx(float(each[:count].mean() + each[count:].mean()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), hardness=st.floats(0, 1))
def test_a_negative_is_pulled_between_the_positive_and_where_it_was(seed, hardness):
    a, p, n = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(seed)).double()
    near, far = (a - p).norm(dim=1), (a - n).norm(dim=1)
    found = pulled_in(a, p, n, hardness)
    distance = (found - a).norm(dim=1)
    moves = far > near
    assert (distance[moves] >= near[moves] - 1e-9).all()
    assert (distance[moves] <= far[moves] + 1e-9).all()
    assert torch.equal(found[~moves], n[~moves])
    torch.testing.assert_close(pulled_in(a, p, n, 1.0), n)
    harder = (pulled_in(a, p, n, 0.0) - a).norm(dim=1)
    torch.testing.assert_close(harder, torch.minimum(near, far))


def test_the_grid_leaves_partners_and_kin_where_they_are():
    x, y = batch([4, 2, 2])
    found = n_pairs(x, y, None, 0.2, 0.0)
    count = 4
    anchor, grid = found.rows[:count], found.rows[count:].unflatten(0, (count, count))
    kinds = found.labels[:count]
    for i in range(count):
        for j in range(count):
            still = torch.equal(grid[i, j], grid[j, j])
            assert still or kinds[i] != kinds[j]
    assert (found.labels[count:].unflatten(0, (count, count)) == kinds).all()
    assert found.counts.sum() == 2
    assert len(anchor) == count


def test_with_a_generator_that_undoes_the_head_synthetic_is_real():
    """Nothing pulled, and head(G(z)) = z: J(z~) = J(z)."""
    x, y = batch([2, 2, 2], dim=4)
    for base in BASES:
        loss = built(dim=4, features=4, base=base)
        loss.generator = nn.Identity()
        parts = loss.parts(x, x, y, nn.Identity(), 1.0, 0.3)
        assert parts is not None
        torch.testing.assert_close(parts.synthetic, parts.real)


def test_means_over_a_window_make_negatives_harder():
    model, loss = net(), built(base="triplet", window=4)
    x, y = batch([4, 3, 4], dim=4)
    assert loss.constants_now() == (1.0, 1.0)  # no synthesis before the first mean
    for _ in range(3):
        step(loss, model, x, y)
    assert loss.constants_now() == (1.0, 1.0)
    step(loss, model, x, y)
    assert loss.warm
    assert loss.first == loss.past[0].mean()
    assert loss.constants_now()[0] == pytest.approx(exp(-1))
    loss.past[0] /= 2  # half of the first loss
    assert loss.constants_now()[0] == pytest.approx(exp(-2))
    released = built(base="triplet", form="released")
    assert released.constants_now() == pytest.approx((exp(-90 / 1e6), exp(-1e4 / 1e6)))


def test_losses_of_0_leave_the_hardest_negatives_and_synthetic_tuples_alone():
    for form in ("right", "released"):
        loss = built(form=form)
        loss.steps.fill_(3)
        loss.first.fill_(2.0)
        loss.warm.fill_(True)
        assert loss.constants_now() == (0.0, 0.0)  # whose past is 0: exp(-a / 0), and no NaN


def test_an_epoch_that_is_shorter_than_the_window_has_means():
    model, loss = net(), built(base="triplet", window=64)
    x, y = batch([4, 3, 4], dim=4)
    loss.survey()
    assert not loss.warm
    step(loss, model, x, y)
    loss.survey()
    assert loss.warm
    assert loss.constants_now()[0] == pytest.approx(exp(-1))


def test_shares_of_chance_begin_near_1():
    torch.manual_seed(0)
    x, y = batch([8] * 6, dim=4)
    model, loss = net(features=5), built(classes=6)
    features = model["trunk"](x)
    parts = loss.parts(model["head"](features), features, y, model["head"], 1.0, 1.0)
    assert parts is not None
    assert 0.5 < parts.generator.item() < 2.5


def test_synthetic_rows_do_not_count_in_the_head_s_statistics():
    model, plain = net(norm=True), net(norm=True)
    x, y = batch([4, 3, 4], dim=4)
    step(built(), model, x, y)
    plain["head"](plain["trunk"](x))
    for a, b in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_is_raised():
    model, loss = net(), built()
    x, y = batch([4, 3, 4], dim=4)
    x[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="HDML: the loss is nan"):
        step(loss, model, x, y)
    assert loss.steps == 0


@settings(max_examples=50, deadline=None)
@given(case=batches(), base=st.sampled_from(BASES), form=st.sampled_from(["right", "released"]))
def test_is_finite_on_batches_of_any_shape(case, base, form):
    x, y = case
    x = x.requires_grad_()
    head = nn.Linear(x.shape[1], 3).double()
    loss = built(dim=3, features=x.shape[1], base=base, form=form)
    for hot in (False, True):
        loss.warm.fill_(hot)
        loss.first.fill_(1.0)
        value = loss(head(x), y, features=x, head=head)
        assert value.isfinite()
        found = torch.autograd.grad(value, [x, *head.parameters()], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in found)
        if (y.unique(return_counts=True)[1] > 1).sum() < 2:
            assert value == 0
            assert found[0] is None or (found[0] == 0).all()


def test_triplets_may_be_given_and_are_else_read_from_tuples():
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    a, p, n = chosen_triplets(y)
    assert (a.tolist(), p.tolist(), n.tolist()) == ([0, 2, 4], [1, 3, 5], [2, 4, 0])
    model, loss = net(), built(base="triplet", window=1)
    x, _ = batch([2, 2, 2], dim=4)
    whole = step(loss.eval(), model, x, y)
    torch.testing.assert_close(step(loss, model, x, y, (a, p, n)), whole)
    assert step(loss, model, x, y, (a[:1], p[:1], n[:1])) != whole


def test_what_it_cannot_honour_is_refused():
    x, y = batch([2, 2], dim=4)
    model, loss = net(), built()
    with pytest.raises(ValueError, match=r"must be called with features=.*head="):
        loss(x[:, :3], y)
    pairs = (torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(ValueError, match="takes no miner"):
        step(loss, model, x, y, pairs)
    with pytest.raises(ValueError, match="takes no miner"):
        step(built(base="triplet"), model, x, y, (*pairs, pairs[0]))
    with pytest.raises(ValueError, match="no use for a memory"):
        Memory(loss)
    with pytest.raises(ValueError, match="looks at the head itself"):
        make("matryoshka", {"loss": "hdml"}, classes=3, dim=16)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"base": "contrastive"}, "unknown base"),
        ({"form": "printed"}, "unknown form"),
        ({"share": 1.5}, "share must be in"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"window": 0}, "window must be"),
    ]
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            built(**options)


def test_rates_and_what_it_wants():
    assert wants_features("hdml")
    assert wants_features("combined", {"terms": "triplet + hdml"})
    assert not wants_features("combined", {"terms": "triplet"})
    loss: Any = make("hdml", classes=10, dim=4, features=7)
    assert loss.wants == ("features", "head")
    assert loss.generator[-1].out_features == 7
    groups = param_groups(nn.Linear(2, 2), loss, lr=1e-4)
    assert [g["lr"] for g in groups] == [1e-4, 0.01, 0.001]
    together: Any = make("combined", {"terms": "triplet + hdml"}, classes=4, dim=3, features=5)
    model = net()
    x, y = batch([2, 2, 2], dim=4)
    features = model["trunk"](x)
    value = together.double()(model["head"](features), y, features=features, head=model["head"])
    assert value.isfinite()
    assert together.wants == ("features", "head")
