"""Heads that start from a closed form: what they are at the start, and when they are folded."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearkin import models
from nearkin.closed import ClosedForm
from nearkin.models.features import Power
from nearkin.models.heads import before_last, folded, halves, start_head, start_mlp


@pytest.fixture
def x() -> Tensor:
    """60 vectors of 16 numbers, some 0, of 5 classes."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 16, generator=generator)
    x = centres.repeat_interleave(12, 0) + torch.randn(60, 16, generator=generator)
    return x * (torch.rand(60, 16, generator=generator) > 0.1)


Y = np.repeat(np.arange(5), 12)


def fitted(x: Tensor, dim: int, power: float = 1.0) -> ClosedForm:
    return ClosedForm("whitened", dim, power=power).fit(x.numpy(), Y)


def learn(backbone: Any, x: Tensor) -> None:
    """A few steps that move every weight."""
    optimizer = torch.optim.Adam(backbone.parameters(), lr=0.1)
    backbone.train()
    for _ in range(3):
        backbone(x).pow(3).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    backbone.eval()


def test_power_is_that_of_the_closed_forms_and_has_a_slope_everywhere(x):
    for power in (0.3, 0.5, 2.0):
        expected = ClosedForm("power", power=power).fit_transform(x.numpy())
        torch.testing.assert_close(Power(power)(x), torch.from_numpy(expected))
        inputs = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.double, requires_grad=True)
        (slope,) = torch.autograd.grad(Power(power)(inputs).sum(), inputs)
        wanted = power * inputs.abs() ** (power - 1)
        wanted[1] = 0
        torch.testing.assert_close(slope, wanted)


@pytest.mark.parametrize("power", [0.0, -1.0, float("inf"), float("nan")])
def test_a_power_is_above_0(power):
    with pytest.raises(ValueError, match="power must be above 0, and finite, got"):
        Power(power)


@pytest.mark.parametrize("name", ["linear", "mlp", "identity"])
def test_backbones_on_features_take_a_power(name, x):
    torch.manual_seed(0)
    plain = models.make(name, {}, (16,), 4)
    torch.manual_seed(0)
    powered = models.make(name, {"power": 0.5}, (16,), 4)
    torch.testing.assert_close(powered(x), plain(x.sign() * x.abs().sqrt()))


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_head_starts_as_the_closed_form_and_is_folded_into_one_layer(power, x):
    form = fitted(x, 6, power)
    backbone = models.make("linear", {"power": power}, (16,), 6)
    before = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    start_head(backbone, [form.map_])
    torch.testing.assert_close(backbone(x), torch.from_numpy(form.transform(x.numpy())))
    learn(backbone, x)
    assert not torch.allclose(backbone(x), torch.from_numpy(form.transform(x.numpy())), atol=0.1)
    one = folded(backbone)
    assert {name: tensor.shape for name, tensor in one.state_dict().items()} == before
    torch.testing.assert_close(one(x), backbone(x), rtol=1e-4, atol=1e-4)
    assert isinstance(one.head, torch.nn.Linear)
    assert isinstance(backbone.head, torch.nn.Sequential)  # the one that learns is left as it is


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("hidden", [0, 13, 40])
def test_an_mlp_starts_as_the_closed_form(hidden, power, x):
    """In as many directions as it has pairs of hidden units."""
    rows = min((hidden or 16) // 2, 16)
    form = fitted(x, rows, power)
    backbone = models.make("mlp", {"power": power, "hidden": hidden}, (16,), 6)
    start_mlp(backbone, form.map_)
    expected = torch.from_numpy(form.transform(x.numpy()))[:, :6]
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-4)
    learn(backbone, x)
    assert all(p.isfinite().all() for p in backbone.parameters())
    torch.testing.assert_close(folded(backbone)(x), backbone(x), rtol=1e-3, atol=1e-3)
    again = models.make("mlp", {"power": power, "hidden": hidden}, (16,), 6)
    again.load_state_dict(folded(backbone).state_dict())
    torch.testing.assert_close(again(x), backbone(x), rtol=1e-3, atol=1e-3)


def test_slices_of_an_mlp_start_as_the_rows_of_the_closed_form(x):
    form = fitted(x, 8)
    backbone = models.make("mlp", {"stages": 2}, (16,), 6)
    start_mlp(backbone, form.map_)
    wanted = unit_slices(torch.from_numpy(form.transform(x.numpy()))[:, :6], 3, 3)
    torch.testing.assert_close(backbone(x), wanted, rtol=1e-4, atol=1e-4)
    learn(backbone, x)
    torch.testing.assert_close(folded(backbone)(x), backbone(x), rtol=1e-3, atol=1e-3)


def test_an_mlp_without_enough_hidden_units_is_refused(x):
    backbone = models.make("mlp", {"hidden": 8}, (16,), 6)
    with pytest.raises(ValueError, match="wanted a head of 4 dimensions or fewer, half its"):
        start_mlp(backbone, fitted(x, 4).map_)


def test_dropout_is_of_the_whitened_inputs_and_of_training_alone(x):
    form = fitted(x, 6)
    backbone = models.make("linear", {}, (16,), 6)
    start_head(backbone, [form.map_], dropout=0.5)
    expected = torch.from_numpy(form.transform(x.numpy()))
    torch.manual_seed(0)
    seen = backbone.train()(x)
    kept = (seen.abs() > 1e-6).float().mean()  # a direction each, which is there or not
    assert 0.4 < kept < 0.6
    torch.testing.assert_close(backbone.eval()(x), expected)
    torch.testing.assert_close(folded(backbone).train()(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_what_learns_nothing_can_be_made_once(name, x):
    backbone = models.make(name, {"power": 0.5}, (16,), 6)
    form = fitted(x, 6, 0.5)
    start_head(backbone, [form.map_], 0.5) if name == "linear" else start_mlp(backbone, form.map_)
    once, rest = halves(backbone)
    assert not list(once.parameters())
    assert [id(p) for p in rest.parameters()] == [id(p) for p in backbone.parameters()]
    for mode in (True, False):
        backbone.train(mode)
        torch.manual_seed(1)
        whole = backbone(x)
        torch.manual_seed(1)
        torch.testing.assert_close(rest(once(x)), whole)


def test_the_parts_of_other_backbones():
    once, rest = halves(models.make("identity", {}, (16,), 16))
    assert len(once) == 2
    assert not next(iter(rest.children()))
    network = models.make("network", {}, (1, 28, 28), 3)
    once, rest = halves(network)
    pictures = torch.rand(2, 1, 28, 28)
    assert len(once) == 0
    torch.testing.assert_close(rest(pictures), network(pictures))


def test_what_the_last_layer_reads(x):
    backbone = models.make("mlp", {"hidden": 5}, (16,), 3)
    torch.testing.assert_close(before_last(backbone)(x), backbone.trunk(x))
    network = models.make("network", {}, (1, 28, 28), 3)
    pictures = torch.rand(2, 1, 28, 28)
    assert before_last(network)(pictures).shape == (2, 256)
    assert network(pictures).shape == (2, 3)  # left as it is


def test_backbones_that_do_not_end_in_one_linear_layer_are_refused(x):
    backbone = models.make("identity", {}, (16,), 16)
    with pytest.raises(ValueError, match="wanted a backbone that ends in one linear layer"):
        start_head(backbone, [fitted(x, 6).map_])
    with pytest.raises(ValueError, match="wanted a map of 5 dimensions, got one of 6"):
        start_head(models.make("linear", {"stages": 2}, (16,), 5), [fitted(x, 6).map_])


def unit_slices(x: Tensor, *sizes: int) -> Tensor:
    return torch.cat([part / part.norm(dim=1, keepdim=True) for part in x.split(sizes, 1)], 1)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_slices_of_one_level_start_as_the_rows_of_the_closed_form(power, x):
    form = fitted(x, 7, power)
    backbone = models.make("linear", {"power": power, "stages": 3}, (16,), 7)
    before = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    start_head(backbone, [form.map_], dropout=0.3)
    wanted = unit_slices(torch.from_numpy(form.transform(x.numpy())), 2, 2, 3)
    torch.testing.assert_close(backbone.eval()(x), wanted, rtol=1e-4, atol=1e-4)
    learn(backbone, x)
    assert not torch.allclose(backbone(x), wanted, atol=0.1)
    one = folded(backbone)
    assert {name: tensor.shape for name, tensor in one.state_dict().items()} == before
    torch.testing.assert_close(one(x), backbone(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_each_level_starts_as_a_closed_form_of_its_own(norm):
    options = {"weights": "none", "stages": 2, "norm": norm, "pool": "max"}
    backbone: Any = models.make("timm:test_resnet", options, (3, 32, 32), 6).eval()
    pictures = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        levels = backbone.trunk.features(pictures)
        read = [norm(level) for norm, level in zip(backbone.head[-1].norms, levels, strict=True)]
        assert torch.equal(before_last(backbone)(pictures), torch.cat(read, 1))
        forms = [fitted(level, 3) for level in read]
        start_head(backbone, [form.map_ for form in forms])
        made = [form.transform(level.numpy()) for form, level in zip(forms, read, strict=True)]
        wanted = unit_slices(torch.from_numpy(np.concatenate(made, 1)), 3, 3)
        torch.testing.assert_close(backbone(pictures), wanted, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(folded(backbone)(pictures), wanted, rtol=1e-3, atol=1e-3)
