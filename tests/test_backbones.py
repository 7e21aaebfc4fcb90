"""A backbone gives what its layers, written out one by one, give; errors say what is wanted."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from torch import nn

from nearkin.extras import PACKAGED
from nearkin.models import BACKBONES, Network, make


def seeds_network(dim=2):
    """As the n-tuple report builds it."""
    net = Network(28, 28, 1, dim)
    return net.add_conv(5, 5, 2, 2, 32).add_conv(5, 5, 2, 2, 64).add_fc(1024).add_fc(256)


def test_seeds_network_has_its_parameters_before_the_first_call():
    layers = (
        25 * 32 + 32,
        32 * 25 * 64 + 64,
        7 * 7 * 64 * 1024 + 1024,
        1024 * 256 + 256,
        256 * 2 + 2,
    )
    assert sum(p.numel() for p in seeds_network().parameters()) == sum(layers)


def test_seeds_network_is_its_layers_one_by_one():
    torch.manual_seed(0)
    net = seeds_network()
    x = torch.randn(3, 1, 28, 28)
    weights = list(net.parameters())
    h = F.max_pool2d(F.relu(F.conv2d(x, weights[0], weights[1], padding=2)), 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, weights[2], weights[3], padding=2)), 2)
    h = F.relu(h.flatten(1) @ weights[4].T + weights[5])
    h = F.relu(h @ weights[6].T + weights[7])
    torch.testing.assert_close(net.connect(x), h @ weights[8].T + weights[9])
    torch.testing.assert_close(net.head(net.trunk(x)), net(x))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 9))
def test_convolutions_keep_the_size_for_odd_and_even_kernels(kernel_h, kernel_w, pool, width):
    torch.manual_seed(kernel_h * 10 + kernel_w)
    height = 5
    pool_w = min(pool, width)
    net = Network(height, width, 2, 3).add_conv(kernel_h, kernel_w, pool, pool_w, 1)
    x = torch.randn(2, 2, height, width)
    place = next(i for i, m in enumerate(net.trunk) if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        nn.init.constant_(net.get_parameter(f"trunk.{place}.bias"), 0.3)
        before = net.trunk[: place + 1](x)
        after = net.trunk(x)
    kernel = net.get_parameter(f"trunk.{place}.weight")[0].detach().numpy()
    rows, columns = (((k - 1) // 2, k // 2) for k in (kernel_h, kernel_w))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), rows, columns))
    for picture, result in zip(padded, before[:, 0], strict=True):
        slow = sum(
            correlate2d(plane, weights, mode="valid")
            for plane, weights in zip(picture, kernel, strict=True)
        )
        np.testing.assert_allclose(result.numpy(), slow + 0.3, atol=1e-5)
    assert before.shape == (2, 1, height, width)
    assert after.shape == (2, 1, height // pool, width // pool_w)
    torch.testing.assert_close(after, F.max_pool2d(F.relu(before), (pool, pool_w)))


def test_connect_shares_every_weight():
    torch.manual_seed(0)
    net = Network(6, 6, 1, 2).add_conv(3, 3, 2, 2, 4).add_fc(5)
    count = len(list(net.parameters()))
    a, b = torch.randn(2, 3, 1, 6, 6)
    (net.connect(a).sum() + net.connect(b).sum()).backward()
    apart = [p.grad for p in net.parameters()]
    net.zero_grad(set_to_none=True)
    net.connect(torch.cat([a, b])).sum().backward()
    assert len(apart) == count
    for one, together in zip(apart, net.parameters(), strict=True):
        torch.testing.assert_close(one, together.grad)


def test_a_network_can_be_used_after_every_layer_that_is_added():
    x = torch.zeros(2, 3, 8, 7)
    net = Network(8, 7, 3, 5)
    for add in (lambda: net, lambda: net.add_conv(2, 3, 2, 2, 4), lambda: net.add_fc(6)):
        add()
        assert net.connect(x).shape == (2, 5)
        assert {n.split(".")[0] for n, _ in net.named_parameters()} <= {"trunk", "head"}


def test_hidden_layers_keep_the_scale_of_their_input():
    """He's initialisation: the second moment neither vanishes nor explodes on the way."""
    torch.manual_seed(0)
    hidden = seeds_network().trunk[6:](torch.randn(256, 64, 7, 7))
    assert 0.3 < hidden.pow(2).mean() < 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Network(28, 28, 0, 2), "Network: channels must be a whole number of 1 or more"),
        (lambda: Network(8, 8, 1, 2).add_fc(-1), "add_fc: units must be"),
        (lambda: Network(8, 8, 1, 2).add_conv(3, 3, 2, 2, True), "add_conv: filters must be"),
        (lambda: Network(8, 8, 1, 2).add_fc(4).add_conv(3, 3, 2, 2, 4), "convolutions come before"),
        (
            lambda: Network(1, 8, 1, 2).add_conv(3, 3, 2, 2, 4),
            "pool of 2 x 2 leaves nothing of the 1 x 8",
        ),
        (
            lambda: Network(28, 28, 1, 2)(torch.zeros(4, 28, 28)),
            r"wanted floats \(B, 1, 28, 28\), .*, got float32 \(4, 28, 28\)",
        ),
        (lambda: Network(8, 8, 1, 2)(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)), "got uint8"),
        (lambda: Network(8, 8, 1, 2)(np.zeros((4, 1, 8, 8))), "wanted a tensor, .*, got ndarray"),
        (
            lambda: Network(8, 8, 1, 2)(torch.zeros(4, 1, 8, 8).double()),
            r"wanted torch\.float32, as its weights are, got torch\.float64",
        ),
        (lambda: make("netwrok", {}, (1, 28, 28), 2), "did you mean 'network'"),
        (lambda: make("mlp", {"hiden": 3}, (8,), 2), "unknown option of backbone 'mlp' 'hiden'"),
        (lambda: make("mlp", {"hidden": -1}, (8,), 2), "hidden must be .* 1 or more, got -1"),
        (lambda: make("mlp", {"dim": 3}, (8,), 2), "unknown option of backbone 'mlp' 'dim'"),
        (lambda: make("network", {}, (8,), 2), r"wanted pictures \(C, H, W\), got inputs \(8,\)"),
        (
            lambda: make("network", {"filters": "3;4"}, (1, 8, 8), 2),
            "filters: wanted whole numbers",
        ),
    ],
)
def test_errors_say_what_was_wanted(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {*PACKAGED, "timm"}))
def test_every_backbone_is_a_trunk_and_a_head(name):
    torch.manual_seed(0)
    shape = (1, 28, 28) if name in ("network", "layers") else (12,)
    backbone = make(name, {}, shape, 7)
    x = torch.randn(3, *shape)
    assert backbone(x).shape == (3, 12 if name == "identity" else 7)
    torch.testing.assert_close(backbone(x), backbone.head(backbone.trunk(x)))


def test_a_network_is_built_again_from_its_layers_in_words():
    net = Network(12, 11, 2, 3).add_conv(3, 4, 2, 1, 5).add_conv(1, 1, 2, 2, 4).add_fc(7).add_fc(6)
    assert net.layers == "conv 3 4 2 1 5, conv 1 1 2 2 4, fc 7, fc 6"
    again = make("layers", {"layers": net.layers}, (2, 12, 11), 3)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 2, 12, 11)
    assert torch.equal(again(x), net(x))
    assert make("layers", {"layers": ""}, (1, 8, 8), 2).layers == ""
    staged = make("layers", {"layers": "fc 7, fc 6, stages 2 each"}, (2, 12, 11), 3)
    assert staged.layers == "fc 7, fc 6, stages 2 each"
    assert staged.slices == (1, 2)


@pytest.mark.parametrize(
    "layers", ["conv 3", "fc", "fc x", "pool 2", "fc -3", "conv 5 5 2 2 32 fc 3"]
)
def test_layers_that_are_none(layers):
    with pytest.raises(ValueError, match="layers: wanted such as conv 5 5 2 2 32, fc 256, got"):
        make("layers", {"layers": layers}, (1, 28, 28), 2)


def test_options_of_the_network_are_its_layers():
    net = make("network", {"filters": "3,4,5", "kernel": 3, "units": ""}, (1, 28, 28), 2)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [3, 4, 5]
    assert net.trunk(torch.zeros(2, 1, 28, 28)).shape == (2, 5, 3, 3)


def test_what_make_builds_by_default_is_seeds_network():
    shapes = [p.shape for p in make("network", {}, (1, 28, 28), 2).parameters()]
    assert shapes == [p.shape for p in seeds_network().parameters()]


@pytest.mark.parametrize("dim", [5, 8, 12])
def test_a_head_on_features_starts_orthogonal(dim):
    """Distances between features are kept, or are those of a projection: no direction is scaled."""
    backbone: Any = make("linear", {}, (8,), dim)
    weight = backbone.head.weight.double()
    gram = weight @ weight.T if dim <= 8 else weight.T @ weight
    assert (gram - torch.eye(len(gram))).abs().max() < 1e-6


def test_an_mlp_as_wide_as_its_features_starts_with_their_positive_parts():
    x = torch.randn(3, 12)
    torch.testing.assert_close(make("mlp", {}, (12,), 7).trunk(x), x.clamp_min(0))
    assert make("mlp", {"hidden": 5}, (12,), 7).trunk(x).shape == (3, 5)
