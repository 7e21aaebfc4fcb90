"""A head of K stages gives unit slices, each of a level of its own, or of the last one."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import nearkin as nk
from nearkin.models import Network, describe, load_trunk, make, rebuild
from nearkin.models.stages import StagedHead
from nearkin.tensors import slice_sizes

PIXELS = (3, 64, 64)
BACKBONES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("linear", (40,), {}),
    ("mlp", (40,), {"hidden": 20}),
    ("network", (1, 28, 28), {"units": "32,16"}),
    ("network", (1, 28, 28), {"units": "32,16", "levels": "last"}),
    ("timm:test_resnet", PIXELS, {"weights": "none"}),
    ("timm:test_resnet", PIXELS, {"weights": "none", "levels": "last"}),
    ("timm:test_efficientnet", PIXELS, {"weights": "none", "pool": "gem", "norm": "layer"}),
]


def built(name: str, shape: tuple[int, ...], dim: int = 16, **options: Any) -> Any:
    torch.manual_seed(0)
    return make(name, {"stages": 3} | options, shape, dim).eval()


def inputs(shape: tuple[int, ...], count: int = 5) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def test_slices_are_equal_and_the_last_has_the_rest():
    assert slice_sizes(384, 3) == (128, 128, 128)
    assert slice_sizes(64, 3) == (21, 21, 22)
    assert slice_sizes(512, 3) == (170, 170, 172)
    for count in (0, 6):
        with pytest.raises(ValueError, match="wanted 1 to 5 slices of 5 numbers"):
            slice_sizes(5, count)


@pytest.mark.parametrize(("name", "shape", "options"), BACKBONES)
def test_slices_are_unit_and_distances_add_up(name, shape, options):
    backbone = built(name, shape, **options)
    assert backbone.slices == (5, 5, 6)
    x = backbone(inputs(shape))
    parts = x.split(backbone.slices, 1)
    for part in parts:
        torch.testing.assert_close(part.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(
        torch.cdist(x, x).square(),
        torch.stack([torch.cdist(p, p).square() for p in parts]).sum(0),
        atol=1e-5,
        rtol=1e-5,
    )
    cosine = F.normalize(x) @ F.normalize(x).T
    torch.testing.assert_close(cosine, torch.stack([p @ p.T for p in parts]).mean(0))
    torch.testing.assert_close(backbone.head(backbone.trunk(inputs(shape))), x)


@pytest.mark.parametrize(("name", "shape", "options"), BACKBONES)
def test_every_weight_learns_and_a_checkpoint_makes_it_again(name, shape, options):
    backbone = built(name, shape, **options)
    (backbone(inputs(shape)) * inputs((16,))).sum().backward()
    for part in (backbone.head, backbone.trunk):
        grads = [p.grad for p in part.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in grads)
        assert not grads or max(g.abs().max() for g in grads) > 0
    assert all(p.grad is not None for p in backbone.head.parameters())
    again = rebuild(describe(backbone)).eval()
    assert torch.equal(again(inputs(shape)), backbone(inputs(shape)))


@pytest.mark.parametrize(("name", "shape", "options"), BACKBONES)
def test_one_stage_is_the_plain_head(name, shape, options):
    torch.manual_seed(0)
    plain = make(name, {k: v for k, v in options.items() if k != "levels"}, shape, 16).eval()
    assert plain.slices == ()
    one = built(name, shape, **{**options, "stages": 1})
    assert torch.equal(one(inputs(shape)), plain(inputs(shape)))


def test_slices_of_a_linear_head_have_its_parameters_and_its_start():
    staged, x = built("linear", (40,)), inputs((40,))
    (layer,) = staged.head.maps
    assert sum(p.numel() for p in staged.parameters()) == 40 * 16 + 16
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(16), atol=1e-5, rtol=0)
    whole = x @ layer.weight.T + layer.bias
    expected = [F.normalize(whole[:, part]) for part in (slice(5), slice(5, 10), slice(10, 16))]
    torch.testing.assert_close(staged(x), torch.cat(expected, 1))


def test_the_networks_levels_are_its_last_layers_one_by_one():
    torch.manual_seed(0)
    net = Network(28, 28, 1, 16).add_conv(5, 5, 2, 2, 4).add_conv(3, 3, 2, 2, 6)
    net = net.add_fc(20).add_fc(12).add_stages(3)
    x = inputs((1, 28, 28))
    w = list(net.parameters())
    h = F.max_pool2d(F.relu(F.conv2d(x, w[0], w[1], padding=2)), 2)
    conv = F.max_pool2d(F.relu(F.conv2d(h, w[2], w[3], padding=1)), 2)
    first = F.relu(conv.flatten(1) @ w[4].T + w[5])
    second = F.relu(first @ w[6].T + w[7])
    levels = [conv.mean((2, 3)), first, second]
    slices = [f @ w[8 + 2 * k].T + w[9 + 2 * k] for k, f in enumerate(levels)]
    torch.testing.assert_close(net.connect(x), torch.cat([F.normalize(s) for s in slices], 1))
    assert [s.shape[1] for s in slices] == [5, 5, 6]


def test_the_networks_last_level_alone_is_its_head_in_slices():
    net = built("network", (1, 28, 28), units="32,16", levels="last")
    plain = make("network", {"units": "32,16"}, (1, 28, 28), 16)
    load_trunk(plain, describe(net))
    assert net.trunk(inputs((1, 28, 28))).shape == (5, 16)
    torch.testing.assert_close(plain.trunk(inputs((1, 28, 28))), net.trunk(inputs((1, 28, 28))))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {}),
        ("test_convnext", {}),
        ("test_vit", {"img_size": 64}),
    ],
)
def test_timms_levels_are_its_features_only(name, options):
    backbone = built(f"timm:{name}", PIXELS, weights="none")
    reference: Any = timm.create_model(name, features_only=True, **options).eval()
    state = backbone.trunk.model.state_dict()
    names = {key.replace("model.", "", 1): key for key in reference.state_dict()}
    found = {
        full: state[key if key in state else renamed(key, state)] for key, full in names.items()
    }
    reference.load_state_dict(found)
    with torch.no_grad():
        maps = reference(inputs(PIXELS))[-3:]
        torch.testing.assert_close(
            backbone.trunk(inputs(PIXELS)), torch.cat([m.mean((2, 3)) for m in maps], 1)
        )


def renamed(key: str, state: dict) -> str:
    """The name of a parameter before features_only flattened its stages: stages_0 -> stages.0."""
    return next(full for full in state if full.replace(".", "_") == key.replace(".", "_"))


def test_a_trunk_of_timm_serves_one_stage_and_three():
    plain, staged = (built("timm:test_resnet", PIXELS, weights="none", stages=k) for k in (1, 3))
    nn.init.normal_(next(plain.trunk.parameters()))
    load_trunk(staged, describe(plain))
    assert torch.equal(next(staged.trunk.parameters()), next(plain.trunk.parameters()))


def test_the_distance_at_test_is_that_of_the_released_code():
    angles = torch.tensor([[0.0, 3.0, 8.0], [40.0, 58.0, 15.0]], dtype=torch.double).deg2rad()
    x = torch.stack([angles.cos(), angles.sin()], -1).flatten(1)  # golden H2, rows 0 and 3
    head = StagedHead([2, 2, 2], dim=6, stages=3).double()
    for layer in head.maps:
        nn.init.eye_(layer.weight)  # type: ignore[arg-type]
    lengths = torch.tensor([3.0, 0.5, 7.0], dtype=torch.double).repeat_interleave(2)
    first, second = head(x * lengths)
    assert (first - second).square().sum().item() == pytest.approx(1.3356659377778686, abs=1e-9)


def test_a_staged_network_trains_and_is_evaluated_on_its_slices(tmp_path):
    options = {"stages": 3, "units": "32,16", "filters": "4,8"}
    shared = {"data": "mnist-5k", "batch": 48, "steps": 6, "epochs": 1, "dim": 12}
    recipe = nk.Recipe(**shared, loss="contrastive", backbone_options=options)
    row: Any = nk.run(recipe, tmp_path)
    assert 0.1 < row["metrics"]["last"]["recall@1"] <= 1


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("linear", (40,), {"stages": 0}, "stages must be a whole number of 1 or more, got 0"),
        ("linear", (40,), {"stages": 17}, "wanted 1 to 16 slices of 16 numbers, got 17"),
        ("linear", (40,), {"stages": 2.0}, "wanted a value of type int"),
        ("network", (1, 28, 28), {"stages": 5}, "wanted 5 layers to read, got 4"),
        ("network", (1, 28, 28), {"levels": "al"}, "unknown levels 'al'"),
        ("timm:test_resnet", PIXELS, {"weights": "none", "stages": 9}, "out of range"),
        ("timm:test_resnet", PIXELS, {"weights": "none", "head": "none"}, "wanted head=linear"),
        ("identity", (40,), {}, "unknown option of backbone 'identity' 'stages'"),
    ],
)
def test_errors_say_what_was_wanted(name, shape, options, message):
    with pytest.raises(ValueError, match=message):
        built(name, shape, **options)


def test_layers_come_before_the_stages():
    with pytest.raises(ValueError, match="layers come before the stages"):
        Network(9, 9, 1, 4).add_fc(5).add_stages(2, "last").add_fc(3)
    with pytest.raises(ValueError, match="layers come before the stages"):
        Network(9, 9, 1, 4).add_conv(3, 3, 1, 1, 2).add_stages(1).add_conv(3, 3, 1, 1, 2)
