"""Claim: a saved Model is the same Model wherever it is loaded, timm's too where it can be one, and
a folder that is not what was saved is refused in one line."""

import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import nearkin as nk
from nearkin.data.pictures import WHOLE
from nearkin.models import describe, folder, make
from nearkin.models.golden import DRAWINGS, drawing
from nearkin.models.preprocess import Preprocessing, photographs_at

NONE = {"weights": "none"}
SMALL = Preprocessing(12, 12, 3, 0, 0.0, (0.0,), (1.0,))


def of(name, options, shape=(3, 32, 32), dim=6, metric="cosine") -> nk.Model:
    """The Model of a backbone by name, with random weights."""
    torch.manual_seed(0)
    net: Any = make(name, options, shape, dim)
    if len(shape) == 1:
        return nk.Model(net, None, metric)
    _, height, width = shape
    if name.startswith("timm"):
        return nk.Model(net, photographs_at(height, mean=net.mean, std=net.std), metric)
    return nk.Model(net, Preprocessing(height, width, shape[0], 0, 0.0, net.mean, net.std), metric)


def joined(head="linear", **options) -> nk.Model:
    features = nk.Model.pretrained("timm:test_resnet", size=32, **NONE)
    torch.manual_seed(1)
    return features.join(nk.Model(make(head, options, (features.dim,), 5), None, "euclidean"))


def by_hand() -> nk.Model:
    torch.manual_seed(2)
    net = nk.Network(12, 12, 3, 2).add_conv(3, 4, 2, 2, 5).add_fc(7)
    return nk.Model(net, SMALL, "inner", classes=("a", "ä"), recipe={"lr": 0.1}, limit=2.0)


def timm_object() -> nk.Model:
    torch.manual_seed(3)
    net = timm.create_model("test_resnet", num_classes=4, global_pool="max")
    return nk.Model(net, photographs_at(32, mean=(0.5,), std=(0.5,)))


MODELS = {
    "network": lambda: of("network", {"filters": "4", "units": "8"}, (1, 12, 10)),
    "by hand": by_hand,
    "linear": lambda: of("linear", {}, (9,), metric="euclidean"),
    "mlp": lambda: of("mlp", {"hidden": 5}, (9,)),
    "resnet": lambda: of("timm:test_resnet", NONE),
    "grey": lambda: of("timm:test_resnet", NONE, (1, 32, 32)),
    "gem": lambda: of("timm:test_resnet", NONE | {"pool": "gem", "norm": "batch"}),
    "caffe": lambda: of("timm:test_resnet", NONE | {"bgr": True}),
    "efficientnet": lambda: of("timm:test_efficientnet", NONE),
    "vit": lambda: of("timm:test_vit", NONE, (3, 160, 160)),
    "stride": lambda: of("timm:test_resnet", NONE | {"output_stride": 8}),
    "headless": lambda: nk.Model.pretrained("timm:test_convnext", size=32, **NONE),
    "joined": joined,
    "joined mlp": lambda: joined("mlp", hidden=4),
    "joined identity": lambda: joined("identity"),
    "timm object": timm_object,
}
TIMM = {"resnet", "grey", "efficientnet", "vit", "stride", "headless", "joined", "timm object"}
TIMM |= {"joined identity"}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_the_same_model(name, tmp_path):
    model = MODELS[name]()
    identity = model.identity
    assert model.save(tmp_path / "m") == tmp_path / "m"
    assert model.identity == identity
    loaded = nk.Model.load(tmp_path / "m")
    for what in ("identity", "metric", "dim", "preprocessing", "classes", "recipe", "limit"):
        assert getattr(loaded, what) == getattr(model, what), what
    source = [path for path in (tmp_path / "m/golden").iterdir() if path.suffix != ".safetensors"]
    inputs = source or torch.randn(5, 9)
    assert torch.equal(loaded.embed(inputs), model.embed(inputs))
    loaded.save(tmp_path / "again")
    for path in filter(Path.is_file, (tmp_path / "m").rglob("*")):
        again = tmp_path / "again" / path.relative_to(tmp_path / "m")
        assert again.read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("name", MODELS)
def test_timm_gives_the_same_bits_wherever_it_can(name, tmp_path):
    model = MODELS[name]()
    model.save(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert ("timm reads it too" in card) == (name in TIMM)
    if name not in TIMM:
        with pytest.raises(RuntimeError, match="Unknown model"):
            timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
        return
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(3, 3, model.preprocessing.height, model.preprocessing.width)
    with torch.no_grad():
        assert torch.equal(theirs(x), model.backbone(x))
        fast = x.contiguous(memory_format=torch.channels_last)
        assert torch.equal(theirs(fast), model.backbone(fast))
    cfg: Any = theirs.pretrained_cfg
    assert tuple(cfg["input_size"]) == (3, *[model.preprocessing.height] * 2)
    assert np.allclose(cfg["mean"], model.preprocessing.mean)


def test_the_folder_holds_what_is_promised_and_no_pickle(tmp_path):
    by_hand().save(tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    pictures = {f"golden/{name}" for name in DRAWINGS} | {"golden/embeddings.safetensors"}
    files = {"model.safetensors", "config.json", "preprocess.json", "README.md"}
    assert found == files | pictures
    block = json.loads((tmp_path / "config.json").read_text())["nearkin"]
    assert (block["metric"], block["classes"]) == ("inner", ["a", "ä"])
    steps = json.loads((tmp_path / "preprocess.json").read_text())
    assert steps["decode"]["orientation"] == "exif"
    kinds = [Image.open(BytesIO((tmp_path / "golden" / name).read_bytes())) for name in DRAWINGS]
    assert len(kinds) == 8
    assert {"L", "RGBA", "P", "CMYK"} <= {image.mode for image in kinds}
    assert 1 in [image.width for image in kinds]
    assert [image.getexif().get(0x0112) for image in kinds].count(6) == 1
    assert steps["reduce"]["above"] == WHOLE == 50_000_000
    assert [image.width * image.height > WHOLE for image in kinds].count(True) == 1


def saved(tmp_path) -> Path:
    return by_hand().save(tmp_path / "m")


def refused(path: Path, said: str | None = None) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        nk.Model.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("harm", ["gone", "cut", "one bit", "empty", "a folder"])
def test_a_folder_of_which_any_file_is_harmed_is_refused(tmp_path, harm):
    whole = saved(tmp_path)
    for file in [path for path in whole.rglob("*") if path.is_file()]:
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        target, content = copy / file.relative_to(whole), file.read_bytes()
        target.unlink()
        if harm == "cut":
            target.write_bytes(content[: len(content) // 2])
        elif harm == "one bit":
            middle = len(content) // 2
            changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            target.write_bytes(changed)
        elif harm == "empty":
            target.write_bytes(b"")
        elif harm == "a folder":
            target.mkdir()
        refused(copy)
        shutil.rmtree(copy)
    nk.Model.load(whole)


def resealed(path: Path, change) -> None:
    """Change the config as one would who knows how it is sealed."""
    config = json.loads((path / "config.json").read_text())
    block = config["nearkin"]
    change(block)
    block.pop("seal", None)
    block["files"] = {name: folder.sha256((path / name).read_bytes()) for name in block["files"]}
    block["seal"] = folder.seal(block)
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.update(format=2), "made by a newer Nearkin, format 2; this one reads 1"),
        (lambda b: b.update(format="1"), "not the config of a Nearkin Model"),
        (lambda b: b.update(metric="euclidean"), "not those saved"),
        (lambda b: b.update(metric="far"), "unknown metric"),
        (lambda b: b.update(metric=3), "metric"),
        (lambda b: b.pop("classes"), "cut or changed"),
        (lambda b: b["backbone"].update(name="os.system"), "unknown backbone"),
        (lambda b: b["backbone"].update(dim=3), "does not fit"),
        (lambda b: b["backbone"].update(dim=-1), "dim"),
        (lambda b: b["backbone"].update(input_shape="abc"), "how the backbone is built"),
        (lambda b: b.update(backbone=None), "how the backbone is built"),
        (lambda b: b["backbone"]["options"].update(layers="conv"), "layers: wanted such as"),
        (lambda b: b.update(identity="0" * 16), "not those saved"),
        (lambda b: b.update(classes=3), "config.json"),
    ],
)
def test_a_config_that_says_otherwise_is_refused(tmp_path, change, said):
    path = saved(tmp_path)
    resealed(path, lambda block: None)
    nk.Model.load(path)
    resealed(path, change)
    refused(path, said)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'{"nearkin": 3}', b"\xff\xfe", b"[" * 100_000, b'{"nearkin": {}}'],
)
def test_a_config_that_is_none_is_refused(tmp_path, content):
    path = saved(tmp_path)
    (path / "config.json").write_bytes(content)
    refused(path, "config.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda steps: steps["decode"].update(orientation="ignored"),
        lambda steps: steps.update(sharpen=1),
        lambda steps: steps["resize"].update(height=0),
        lambda steps: steps["resize"].update(height=2**40),
        lambda steps: steps["resize"].pop("height"),
        lambda steps: steps.update(std=[0.0]),
        lambda steps: steps.update(mean="ab"),
        lambda steps: steps["decode"].update(channels=2),
        lambda steps: steps["reduce"].update(above=0),
        lambda steps: steps["reduce"].update(above=WHOLE + 1),
        lambda steps: steps["reduce"].update(above=1e6),
        lambda steps: steps["reduce"].update(spare=1),
    ],
)
def test_preprocessing_that_this_version_does_not_know_is_refused(tmp_path, change):
    path = saved(tmp_path)
    steps = json.loads((path / "preprocess.json").read_text())
    change(steps)
    (path / "preprocess.json").write_text(json.dumps(steps))
    resealed(path, lambda block: None)
    refused(path, "the preprocessing is not one that this version of Nearkin knows")


def test_a_folder_of_before_the_step_reduce_is_read_and_is_the_same_model(tmp_path):
    """It has a small grey picture in the place of the large one."""
    model = by_hand()
    path = model.save(tmp_path / "m")
    steps = json.loads((path / "preprocess.json").read_text())
    del steps["reduce"]
    (path / "preprocess.json").write_text(json.dumps(steps))
    (path / "golden/3-grey-50-megapixels.jpg").unlink()
    Image.fromarray(drawing(90, 90, 2)).convert("L").save(path / "golden/3-grey.png")
    pictures = sorted(path.glob("golden/*.[jp]*"))
    save_file({"embeddings": model.embed(pictures)}, path / "golden/embeddings.safetensors")

    def rename(block):
        block["files"]["golden/3-grey.png"] = block["files"].pop("golden/3-grey-50-megapixels.jpg")

    resealed(path, rename)
    loaded = nk.Model.load(path)
    assert loaded.identity == model.identity
    assert loaded.preprocessing == model.preprocessing
    other = nk.Model(model.backbone, replace(SMALL, above=10**6), "inner")
    assert other.identity != model.identity
    (path / "golden/3-grey.png").unlink()
    refused(path, "golden/3-grey.png is missing")


def test_a_machine_that_decodes_otherwise_is_found_out(tmp_path, monkeypatch):
    path = saved(tmp_path)
    from nearkin.data import pictures

    monkeypatch.setattr(pictures, "turn_of", lambda image: None)
    refused(path, r"golden/2-exif-orientation-6\.jpg at a cosine of 0\.\d+ .* wanted 0\.9999")


def test_loading_runs_no_code_and_leaves_the_generator_alone(tmp_path):
    path = saved(tmp_path)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    nk.Model.load(path)
    by_hand_state = torch.get_rng_state()
    assert torch.equal(torch.rand(3), wanted)
    torch.set_rng_state(by_hand_state)
    sources = [Path(folder.__file__).parent / f"{name}.py" for name in ("folder", "assembly")]
    assert not any("pickle" in source.read_text() for source in sources)


class Own(nn.Module):
    """A user's network, which keeps to no convention of ours."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 5, stride=3)

    def forward(self, x):
        return self.layer(x).view(len(x), -1)


def test_an_own_class_is_built_by_its_owner(tmp_path):
    torch.manual_seed(0)
    model = nk.Model(Own(2), SMALL)
    model.save(tmp_path)
    refused(
        tmp_path, r"the class test_model_folder\.Own, which .* give Model\.load\(DIR, backbone="
    )
    loaded = nk.Model.load(tmp_path, backbone=Own(2))
    assert loaded.identity == model.identity
    with pytest.raises(ValueError, match=r"does not fit: 'layer\.\w+' is"):
        nk.Model.load(tmp_path, backbone=Own(3))
    with pytest.raises(ValueError, match="does not fit: it lacks"):
        nk.Model.load(tmp_path, backbone=nn.Linear(2, 2))


def test_a_network_that_was_changed_by_hand_is_an_own_class(tmp_path):
    model = by_hand()
    model.backbone.trunk.append(nn.BatchNorm1d(7))
    model.save(tmp_path)
    refused(tmp_path, r"nearkin\.models\.network\.Network")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_precision_is_kept(tmp_path, dtype):
    model = of("linear", {}, (9,))
    model.backbone.to(dtype)
    model.save(tmp_path)
    loaded = nk.Model.load(tmp_path)
    assert loaded.dtype == dtype
    assert loaded.identity == model.identity


def test_saving_over_another_model(tmp_path):
    by_hand().save(tmp_path)
    of("linear", {}, (9,)).save(tmp_path)
    assert nk.Model.load(tmp_path).dim == 6
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="wanted a folder for the Model, got a file"):
        by_hand().save(tmp_path / "file")


def test_an_out_folder_with_one_finished_run_is_a_model(tmp_path):
    out = tmp_path / "out"
    by_hand().save(out / "runs" / "aaa")
    (out / "runs" / "unfinished").mkdir()
    (out / "rows.jsonl").write_text("")
    assert nk.Model.load(out).identity == by_hand().identity
    assert nk.Model.load(str(out / "runs/aaa/config.json")).dim == 2
    of("linear", {}, (9,)).save(out / "runs" / "bbb")
    refused(out, r"it holds 2 finished runs; take one of .*runs/ aaa, bbb")


@pytest.mark.parametrize("what", ["absent", "empty", "file.txt"])
def test_what_is_no_model_is_refused(tmp_path, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    refused(tmp_path / what, "wanted a Model's folder")


def old(tmp_path, row: dict | None, shape=(1, 12, 12)) -> Path:
    """A backbone.pt as Nearkin 0.1 left it, with the row of its run or without."""
    path = tmp_path / "runs" / "abc123" / "backbone.pt"
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    options = {"filters": "3", "units": "6"}
    torch.save(describe(make("network", options, shape, 4)), path)
    if row is not None:
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"hash": 3}))
    return path


@pytest.mark.parametrize("row", [None, {"hash": "abc123", "metric": "euclidean", "recipe": {}}])
def test_a_backbone_of_an_old_run_is_read(tmp_path, row):
    path = old(tmp_path, row)
    for where in (path, path.parent, tmp_path):
        model = nk.Model.load(where)
        assert model.metric == ("euclidean" if row else "cosine")
        assert model.embed(np.zeros((12, 12), np.uint8)).shape == (1, 4)


def test_a_row_s_model_has_a_card(tmp_path):
    model = by_hand()
    model.provenance = {
        "metrics": {"last": {"epoch": 3, "recall@1": 0.5775}},
        "data": {"name": "folder:birds", "variant": "full frames", "query_images": 7},
        "versions": {"torch": "2"},
    }
    card = (model.save(tmp_path) / "README.md").read_text()
    assert "| recall@1 | 57.75 |" in card
    assert "test images of folder (full frames)" in card
    assert "inner product (the larger, the nearer)" in card
    assert f"identity: {model.identity}" in card
    assert "| lr | 0.1 |" in card


class Remembering(nn.Linear):
    """A layer whose state is more than tensors."""

    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        pass


def test_what_cannot_be_saved_is_refused_and_leaves_nothing(tmp_path):
    spoilt = nn.Linear(4, 2)
    nn.init.constant_(spoilt.weight, torch.nan)
    for net, said in (
        (Remembering(4, 2), "'_extra_state' is no tensor"),
        (spoilt, "embeddings are not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            nk.Model(net).save(tmp_path / "m")
        assert not (tmp_path / "m").exists()


def test_tensors_that_hold_no_numbers_are_no_vectors():
    model = nk.Model(nn.Linear(4, 2))
    for x, said in (
        (torch.eye(4).to_sparse(), "got a sparse tensor"),
        (torch.eye(4, device="meta"), "without values"),
        (np.ma.masked_equal(np.eye(4, dtype=np.float32), 0), "masked array"),
    ):
        with pytest.raises(ValueError, match=said):
            model.embed(x)
