"""ProxyGML is what its formulas say, for every option; and it neither hides nor wastes anything."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from nearkin.losses import ProxyGML, make, proxy_graph


def from_the_formulas(loss, options, embeddings, labels):
    """The loss as printed, one sample and one proxy at a time."""
    options = {"ratio": 0.05, "weight": 0.3, "scale": 1.0, "proxies": 12} | options
    n, scale = options["proxies"], options["scale"]
    directions = [p / p.norm() for p in loss.proxies]
    count = len(directions)
    k = math.ceil(Fraction(options["ratio"]).limit_denominator(10**6) * count)
    bonus = {"released": 1000.0, "printed": 1.0, "none": 0.0}[options.get("positives", "released")]

    def of_sample(x, label, k, mask):
        similarity = [(x @ p).item() for p in directions]
        ahead = [s + bonus * (j // n == label) for j, s in enumerate(similarity)]
        chosen = sorted(range(count), key=lambda j: -ahead[j])[:k]
        votes = dict.fromkeys(range(count // n), torch.zeros((), dtype=x.dtype))
        for j in chosen:
            votes[j // n] = votes[j // n] + x @ directions[j]
        competing = {j // n for j in chosen} if mask else set(votes)
        if label not in competing:
            return torch.tensor(-math.log(1e-20), dtype=x.dtype)
        total = sum(torch.exp(scale * votes[c]) for c in competing)
        return -torch.log(torch.exp(scale * votes[label]) / total)

    mask = options.get("mask", True)
    samples = [
        of_sample(x / x.norm(), int(y), k, mask) for x, y in zip(embeddings, labels, strict=True)
    ]
    value = torch.stack(samples).mean()
    if options["weight"]:
        masked = options.get("mask_proxies", False)
        own = [
            of_sample(p, j // n, k if masked else count, mask and masked)
            for j, p in enumerate(directions)
        ]
        value = value + options["weight"] * torch.stack(own).mean()
    return value


OPTIONS = [
    {},
    {"positives": "printed"},
    {"positives": "none"},
    {"mask": False},
    {"positives": "none", "mask": False},
    {"mask_proxies": True},
    {"mask_proxies": True, "mask": False},
    {"positives": "none", "mask_proxies": True},
    {"weight": 0.0},
    {"scale": 20.0},
    {"proxies": 1, "ratio": 0.5},
    {"proxies": 1, "ratio": 0.5, "mask": False},
    {"proxies": 1, "ratio": 0.5, "positives": "none"},
    {"ratio": 1.0},
]


def example(options, classes=4, dim=5, batch=6, seed=0):
    """A loss, embeddings of any length and labels, in float64."""
    torch.manual_seed(seed)
    loss = ProxyGML(classes, dim, **{"proxies": 3, "ratio": 0.4, **options}).double()
    embeddings = 3 * torch.randn(batch, dim, dtype=torch.double)
    return loss, embeddings.requires_grad_(), torch.randint(classes, (batch,))


def gradients(value, *tensors):
    """Of a scalar, one for each tensor."""
    return torch.autograd.grad(value, tensors)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_the_formulas_say(options):
    loss, embeddings, labels = example(options)
    value = loss(embeddings, labels)
    expected = from_the_formulas(loss, {"proxies": 3, "ratio": 0.4, **options}, embeddings, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        gradients(value, embeddings, loss.proxies), gradients(expected, embeddings, loss.proxies)
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_its_gradient_is_that_of_differences(options):
    loss, embeddings, labels = example(options, seed=1)

    def value(x, proxies):
        return torch.func.functional_call(loss, {"proxies": proxies}, (x, labels))

    proxies = loss.proxies.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (embeddings, proxies))


@settings(max_examples=30, deadline=None)
@given(
    classes=st.integers(2, 7),
    proxies=st.integers(1, 4),
    batch=st.integers(1, 9),
    ratio=st.floats(0.05, 1),
    positives=st.sampled_from(["released", "printed", "none"]),
    mask_proxies=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_sizes(classes, proxies, batch, ratio, positives, mask_proxies, seed):
    options = {
        "proxies": proxies,
        "ratio": max(ratio, (proxies + 1) / (classes * proxies)),
        "positives": positives,
        "mask_proxies": mask_proxies,
    }
    loss, embeddings, labels = example(options, classes, batch=batch, seed=seed)
    expected = from_the_formulas(loss, options, embeddings, labels)
    torch.testing.assert_close(loss(embeddings, labels), expected)


def test_released_positives_are_certain_wherever_the_sample_lies():
    loss = ProxyGML(classes=3, dim=2, proxies=1, ratio=2 / 3).double()
    with torch.no_grad():
        loss.proxies.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    x, labels = torch.tensor([[1.0, 0.0]], dtype=torch.double), torch.tensor([0])
    assert 0 in loss.nearest(x, labels)  # the cosine of its own class is -1, of the others 1
    assert loss.monitor(x, labels)["class_missing"] == 0


def test_proxies_start_uniform_as_in_the_released_code():
    torch.manual_seed(0)
    loss = ProxyGML(classes=100, dim=64)  # Kaiming-uniform of (D, C N): the fan is C N
    bound = 1200**-0.5
    assert loss.proxies.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert loss.proxies.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


def test_lengths_of_embeddings_and_proxies_do_not_matter():
    loss, embeddings, labels = example({})
    value = loss(embeddings, labels)
    torch.testing.assert_close(loss(torch.nn.functional.normalize(embeddings), labels), value)
    loss.proxies.data *= torch.rand(len(loss.proxies), 1) + 0.5
    torch.testing.assert_close(loss(embeddings, labels), value)


@pytest.mark.parametrize("mask_proxies", [False, True])
def test_blocks_change_nothing_and_keep_the_square_of_the_proxies_out_of_memory(
    monkeypatch, mask_proxies
):
    loss, embeddings, labels = example({"mask_proxies": mask_proxies}, classes=200, dim=4)
    whole = loss(embeddings, labels)
    expected = gradients(whole, embeddings, loss.proxies)
    monkeypatch.setattr(proxy_graph, "CELLS", 6000)  # 10 rows of 600 proxies
    monkeypatch.setattr(proxy_graph, "ROWS", 9)  # which do not go into 600
    with Largest() as largest:
        value = loss(embeddings, labels)
        got = gradients(value, embeddings, loss.proxies)
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(got, expected)
    assert largest.numel <= 6000


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_a_ratio_that_leaves_only_the_true_class_names_one_that_would_do():
    with pytest.raises(ValueError, match="chooses 12 of 1200") as error:
        ProxyGML(100, 8, ratio=0.01)
    ratio = float(str(error.value).split("a ratio of ")[1].split()[0])
    loss = ProxyGML(100, 8, ratio=ratio)
    assert loss.chosen == 13
    assert loss(torch.randn(4, 8), torch.tensor([0, 1, 2, 99])) > 0
    assert ProxyGML(100, 8, ratio=0.01, mask=False).chosen == 12
    with pytest.raises(ValueError, match="chooses 12 of 1200"):
        ProxyGML(100, 8, ratio=0.01, positives="printed")
    assert ProxyGML(100, 8, ratio=0.01, positives="none").chosen == 12


@pytest.mark.parametrize("percent", range(2, 101))
def test_k_is_the_next_whole_number_and_not_the_one_after(percent):
    assert ProxyGML(100, 8, ratio=percent / 100).chosen == 12 * percent


@pytest.mark.parametrize(("classes", "chosen"), [(2, 8), (5, 8), (40, 8), (100, 20)])
def test_the_usual_ratio_leaves_others_than_the_true_class_among_the_chosen(classes, chosen):
    loss = ProxyGML(classes, 8, proxies=4)
    assert loss.chosen == chosen
    assert loss(torch.randn(4, 8), torch.tensor([0, 1, 1, 0])) > 0


def test_a_true_class_that_is_missing_costs_much_and_teaches_nothing():
    loss = ProxyGML(3, 2, proxies=1, ratio=0.5, weight=0.0, positives="none")
    loss.proxies.data = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    embeddings = torch.tensor([[2.0, 0.0]], requires_grad=True)
    value = loss(embeddings, torch.tensor([2]))
    assert value.item() == pytest.approx(-math.log(1e-20))
    assert not any(g.any() for g in gradients(value, embeddings, loss.proxies))
    assert loss.active(embeddings, torch.tensor([2])) == 0


def test_positives_are_certain_as_released_likely_as_printed_and_free_otherwise():
    torch.manual_seed(0)
    embeddings, labels = torch.randn(20, 3), torch.randint(10, (20,))
    shares = {}
    for positives in ("released", "printed", "none"):
        loss = ProxyGML(10, 3, proxies=4, ratio=0.15, positives=positives)
        shares[positives] = loss.active(embeddings, labels).item()
    assert shares["released"] == 1
    assert 0 < shares["none"] < shares["printed"] < 1


def test_it_tells_what_its_graph_and_its_proxies_are_like():
    loss = ProxyGML(2, 2, proxies=2, ratio=0.5, positives="none")
    loss.proxies.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.9, 0.1], [-1.0, 0.0]])
    embeddings = torch.tensor([[1.0, 0.01], [2.0, 0.0], [1.0, 0.02]])  # each nearest to 0 and 2
    told = loss.monitor(embeddings, torch.tensor([0, 0, 1]))
    cosine = (0 - 0.9 / (0.9**2 + 0.1**2) ** 0.5) / 2
    expected = {"own_chosen": 0.5, "class_missing": 0, "proxies_idle": 0.5, "proxy_cosine": cosine}
    assert told == pytest.approx(expected)
    single = ProxyGML(2, 2, proxies=1, ratio=0.5, positives="none")
    single.proxies.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    told = single.monitor(embeddings, torch.tensor([0, 1, 1]))
    assert told["class_missing"] == pytest.approx(2 / 3)
    assert told["proxy_cosine"] == pytest.approx(1)


def test_the_gradient_of_a_step_lowers_the_loss():
    loss, embeddings, labels = example({}, classes=10, dim=16, batch=32)
    before = loss(embeddings, labels)
    step_x, step_p = gradients(before, embeddings, loss.proxies)
    loss.proxies.data -= 0.01 * step_p
    assert loss(embeddings - 0.01 * step_x, labels) < before


def test_half_precision_and_an_empty_batch():
    loss = ProxyGML(5, 8, ratio=0.5)
    embeddings, labels = torch.randn(4, 8), torch.tensor([0, 1, 2, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(embeddings.bfloat16(), labels)
    torch.testing.assert_close(low, loss(embeddings, labels), atol=0.05, rtol=0)
    nothing = torch.zeros(0, 8, requires_grad=True)
    value = ProxyGML(5, 8, ratio=0.5, weight=0.0)(nothing, labels[:0])
    assert value == 0
    assert not gradients(value, nothing)[0].any()


def test_errors_and_registration():
    loss = make("proxy-gml", {"proxies": 2, "ratio": 0.5}, classes=6, dim=8)
    assert isinstance(loss, ProxyGML)
    assert loss.proxies.shape == (12, 8)
    assert loss.rates() == {"proxies": 0.03}
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.5, got 0\.\.6"):
        loss(torch.randn(2, 8), torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="takes no miner"):
        loss(torch.randn(2, 8), torch.tensor([0, 1]), (torch.tensor([0]),) * 3)
    with pytest.raises(ValueError, match="unknown positives 'hard'"):
        ProxyGML(6, 8, positives="hard")
    with pytest.raises(ValueError, match="ratio must be in"):
        ProxyGML(6, 8, ratio=-0.1)
    with pytest.raises(ValueError, match="classes must be a number of 2 or more"):
        ProxyGML(1, 8)
