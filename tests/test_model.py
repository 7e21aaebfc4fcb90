"""Claim: a Model takes pictures in any form to the embeddings that its training meant, and says how
near two of them are; fewer dimensions and bits are what their formulas say."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nearkin as nk
from nearkin.data import transforms
from nearkin.data.splits import Split
from nearkin.models import make
from nearkin.models.golden import drawing
from nearkin.models.preprocess import Preprocessing, photographs_at, preprocessing_of

PIXELS = [drawing(40, 60, 0), drawing(50, 44, 1), drawing(64, 64, 2)]


def network(metric="cosine", channels=3, **options) -> nk.Model:
    """A small network with random weights on whole pictures of 16 x 16."""
    torch.manual_seed(0)
    net = make("network", {"filters": "6", "units": "12"}, (channels, 16, 16), 10)
    steps = Preprocessing(16, 16, channels, 0, 0.0, (0.0,), (1.0,))
    return nk.Model(net, steps, metric, **options)


def photographs(**options) -> nk.Model:
    """timm's smallest ResNet with random weights on photographs, at 32 pixels."""
    torch.manual_seed(0)
    net = make("timm:test_resnet", {"weights": "none"} | options, (3, 32, 32), 8)
    return nk.Model(net, photographs_at(32, mean=net.mean, std=net.std))


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """The pictures as PNG files."""
    paths = [tmp_path / f"{i}.png" for i in range(len(PIXELS))]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


class Pictures:
    """A data set of (picture, label), as torch's are."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        if i >= len(PIXELS):
            raise IndexError
        return Image.fromarray(PIXELS[i]), i % 2


FORMS: dict[str, Any] = {
    "text": lambda files: [str(path) for path in files],
    "paths in a tuple": lambda files: tuple(files),
    "an array of paths": lambda files: np.array([str(path) for path in files]),
    "a generator": lambda files: iter(files),
    "images": lambda files: [Image.open(path) for path in files],
    "arrays": lambda files: PIXELS,
    "floats in 0..1": lambda files: [pixels / 255 for pixels in PIXELS],
    "whole numbers": lambda files: [pixels.astype(np.int64) for pixels in PIXELS],
    "tensors": lambda files: [torch.from_numpy(p).permute(2, 0, 1) for p in PIXELS],
    "float tensors": lambda files: [torch.from_numpy(p).permute(2, 0, 1) / 255 for p in PIXELS],
    "with alpha": lambda files: [
        np.dstack([p, np.full(p.shape[:2], 255, "uint8")]) for p in PIXELS
    ],
    "a data set": lambda files: Pictures(),
    "dictionaries": lambda files: [{"image": pixels, "label": 0} for pixels in PIXELS],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("build", [network, photographs])
def test_pictures_in_any_form_have_one_embedding(files, form, build):
    model = build()
    wanted = model.embed(files)
    assert wanted.dtype == torch.float32
    assert wanted.shape == (3, model.dim)
    assert wanted.device.type == "cpu"
    assert torch.equal(model.embed(FORMS[form](files)), wanted)


def test_one_picture_is_one_row(files):
    model = photographs()
    wanted = model.embed(files[:1])
    tensor = torch.from_numpy(PIXELS[0]).permute(2, 0, 1)
    for one in (files[0], str(files[0]), Image.open(files[0]), PIXELS[0], tensor):
        assert torch.equal(model.embed(one), wanted)
    assert model.embed([]).shape == (0, 8)


def test_many_pictures_in_one_array_or_tensor_or_loader():
    model, many = network(), np.stack([drawing(16, 16, i) for i in range(5)])
    wanted = torch.cat([model.embed(one) for one in many])
    tensor = torch.from_numpy(many).permute(0, 3, 1, 2)
    loader = DataLoader(TensorDataset(tensor, torch.arange(5)), batch_size=2)
    for source in (many, tensor, loader, TensorDataset(tensor, torch.arange(5))):
        torch.testing.assert_close(model.embed(source), wanted, rtol=0, atol=1e-6)
    grey = many[..., 0]
    stacked = np.stack([grey] * 3, 3)
    torch.testing.assert_close(model.embed(grey), model.embed(stacked), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_batch_changes_no_embedding(files, batch):
    model = photographs()
    torch.testing.assert_close(model.embed(files, batch=batch), model.embed(files))


def test_a_photograph_is_embedded_as_it_is_shown(tmp_path):
    model, upright = photographs(), Image.fromarray(PIXELS[0])
    lying = upright.transpose(Image.Transpose.ROTATE_90)  # what orientation 6 turns back
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    wanted = model.embed(upright)
    assert torch.equal(model.embed(tmp_path / "lying.png"), wanted)
    assert torch.equal(model.embed(Image.open(tmp_path / "lying.png")), wanted)
    assert not torch.allclose(model.embed(lying), wanted, atol=1e-4)


def test_transparent_grey_and_deep_pictures():
    model = network()
    ground = PIXELS[0].copy()
    ground[:20] = 255
    alpha = np.full(ground.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    layered = Image.fromarray(np.dstack([PIXELS[0], alpha]))
    assert torch.equal(model.embed(layered), model.embed(ground))
    grey = PIXELS[0][..., 0]
    wanted = model.embed(np.stack([grey] * 3, 2))
    deep = grey.astype(np.uint16) * 257
    for one in (grey, grey[..., None], Image.fromarray(grey), deep, Image.fromarray(deep)):
        assert torch.equal(model.embed(one), wanted)
    colour = np.asarray(Image.fromarray(PIXELS[0]).convert("L"))
    model = network(channels=1)
    assert torch.equal(model.embed(PIXELS[0]), model.embed(colour))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data set of photographs of many sizes, and one of small pictures of one size."""
    root = tmp_path_factory.mktemp("sets")
    for kind in "abcd":
        for i in range(3):
            many, alike = root / "many" / kind, root / "alike" / kind
            many.mkdir(parents=True, exist_ok=True)
            alike.mkdir(parents=True, exist_ok=True)
            turn = ord(kind) + i
            Image.fromarray(drawing(300 + 40 * i, 400 - 31 * i, turn)).save(many / f"{i}.png")
            Image.fromarray(drawing(20, 28, turn)).save(alike / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("name", "size"), [("many", 0), ("many", 48), ("many", 256), ("alike", 0), ("alike", 24)]
)
def test_a_file_s_pixels_are_those_of_batches(folders, name, size):
    split = nk.load(f"folder:{folders / name}", size=size).query
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    steps = preprocessing_of(split.inputs, size, mean, std)
    assert steps is not None
    model = nk.Model(nn.Flatten(), steps)
    wanted = transforms.batch(
        split.inputs, torch.arange(6), train=False, size=size, mean=mean, std=std
    )
    found = model.embed([folders / name / path for path in split.names])
    assert torch.equal(found, wanted.flatten(1))
    assert torch.equal(model.embed(split), wanted.flatten(1))


@pytest.mark.parametrize("short_side", [64, 0])
def test_reducing_is_the_preprocessing_s_own_number_for_a_picture_in_any_form(tmp_path, short_side):
    """250,000 pixels are decoded whole where that is the number, and reduced by one less."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    forms = [
        tmp_path / "a.png",
        Image.fromarray(noise),
        noise,
        torch.from_numpy(noise).movedim(2, 0),
    ]
    found = {}
    for above in (250_000, 249_999):
        steps = Preprocessing(20, 20, 3, short_side, 0.5, (0.0,), (1.0,), above=above)
        model = nk.Model(nn.Flatten(), steps)
        model.save(tmp_path / str(above))
        written = json.loads((tmp_path / str(above) / "preprocess.json").read_text())
        assert written["reduce"] == {"above": above, "spare": short_side or 40, "by": "powers of 2"}
        again = nk.Model.load(tmp_path / str(above), backbone=nn.Flatten())
        assert again.preprocessing == steps
        several = torch.cat([again.embed([form]) for form in forms])
        assert torch.equal(several, several[:1].expand(4, -1))
        found[above] = several[0]
    small = np.asarray(Image.fromarray(noise).reduce(2 if short_side else 4))
    wanted = nk.Model(nn.Flatten(), steps).embed([small])[0]
    assert torch.equal(found[249_999], wanted)
    assert not torch.equal(found[250_000], wanted)


def test_mnist_s_split_is_its_pictures():
    split = nk.load("mnist-5k").query
    steps = preprocessing_of(split.inputs, 0, (0.0,), (1.0,))
    assert steps is not None
    model = nk.Model(nn.Flatten(), steps)
    some = split.select(torch.arange(3))
    torch.testing.assert_close(model.embed(some), split.tensor[:3].flatten(1) / 255)
    pictures = [Image.fromarray(picture[0].numpy()) for picture in split.tensor[:3]]
    assert torch.equal(model.embed(pictures), model.embed(some))


def test_a_set_of_inverted_pictures_inverts_files_and_not_its_own_arrays(tmp_path):
    steps = Preprocessing(16, 16, 1, 0, 0.0, (0.0,), (1.0,), inverted=True)
    model, drawn = nk.Model(nn.Flatten(), steps), drawing(16, 16, 0)[..., 0]
    Image.fromarray(255 - drawn).save(tmp_path / "ink.png")
    assert torch.equal(model.embed(tmp_path / "ink.png"), model.embed(drawn))


def head(metric="euclidean", features=8) -> nk.Model:
    torch.manual_seed(1)
    return nk.Model(make("mlp", {"hidden": 5}, (features,), 4), None, metric)


def test_a_head_alone_takes_vectors_and_refuses_pictures(files):
    model, x = head(), torch.randn(6, 8)
    wanted = model.backbone(x).detach()
    forms = (x, x.numpy(), x.double(), list(x), x.tolist(), [list(row) for row in x.numpy()])
    for source in (*forms, Split(x, torch.zeros(6).long(), ("a",)), TensorDataset(x)):
        torch.testing.assert_close(model.embed(source), wanted)
    torch.testing.assert_close(model.embed(x[0]), wanted[:1])
    torch.testing.assert_close(model.embed(x[0].tolist()), wanted[:1])
    for source in (files, files[0], PIXELS[0], Image.fromarray(PIXELS[0]), torch.zeros(3, 9, 9)):
        with pytest.raises(ValueError, match="this Model takes vectors") as caught:
            model.embed(source)
        assert "\n" not in str(caught.value)


def test_a_head_joins_the_backbone_that_made_its_features(files):
    features, on_top = photographs(head="none"), head(features=96)
    joined, x = features.join(on_top), features.embed(files)
    torch.testing.assert_close(joined.embed(files), on_top.embed(x))
    torch.testing.assert_close(joined.embed(x), on_top.embed(x))
    assert (joined.metric, joined.dim) == ("euclidean", 4)
    with pytest.raises(ValueError, match="the head takes 8 features, the backbone makes 10"):
        network().join(head())
    with pytest.raises(ValueError, match="wanted a Model of pictures, and a head"):
        head().join(head())


def test_similarity_is_larger_where_embeddings_are_nearer():
    a, b = torch.randn(4, 5), torch.randn(3, 5)
    formulas = {
        "cosine": lambda x, y: x @ y / np.sqrt((x @ x) * (y @ y)),
        "inner": lambda x, y: x @ y,
        "euclidean": lambda x, y: -np.sqrt(((x - y) ** 2).sum()),
    }
    names = {"cosine": "cosine", "inner": "inner product"}
    for metric, formula in formulas.items():
        model = network(metric)
        slow = [[formula(x, y) for y in b.numpy()] for x in a.numpy()]
        for left, right in ((a, b), (a.numpy(), b.tolist())):
            torch.testing.assert_close(model.similarity(left, right), torch.tensor(slow))
        assert (model.similarity(a, a).argmax(1) == torch.arange(4)).all() or metric == "inner"
        assert model.similarity_name == names.get(metric, "minus the Euclidean distance")
        assert model.metric == metric
    assert (network("euclidean").similarity(a, a).diagonal() == 0).all()
    assert model.similarity(a[0], b).shape == (1, 3)


def test_fewer_dimensions_are_the_first_ones(files):
    model = photographs()
    x = model.embed(files)
    assert torch.equal(model.embed(files, truncate=3), x[:, :3])
    for wrong in (0, 9, 1.5, True):
        with pytest.raises(ValueError, match=r"truncate must be a whole number in 1\.\.8"):
            model.embed(files, truncate=wrong)  # type: ignore[arg-type]


def test_fewer_bits(files):
    model = photographs()
    x = model.embed(files)
    assert torch.equal(model.embed(files, precision="float16"), x.half())
    few = model.embed(files, precision="int8")
    slow = [[round(127 * v / max(map(abs, row))) for v in row] for row in x.double().tolist()]
    assert few.dtype == torch.int8
    assert (few.double() - torch.tensor(slow).double()).abs().max() <= 1  # at ties of rounding
    bits = model.embed(files, precision="binary", truncate=5)
    assert bits.dtype == torch.uint8
    slow = [[sum((v > 0) << (7 - i) for i, v in enumerate(row[:5]))] for row in x.tolist()]
    assert bits.tolist() == slow
    cosines = model.similarity(x, x)
    torch.testing.assert_close(model.similarity(few, few), cosines, rtol=0, atol=0.02)
    half = model.embed(files, precision="float16")
    torch.testing.assert_close(model.similarity(half, half), cosines, rtol=0, atol=2e-3)
    bits = model.embed(files, precision="binary")
    signs = torch.where(x > 0, 1.0, -1.0)
    torch.testing.assert_close(model.similarity(bits, bits), signs @ signs.T / 8)
    with pytest.raises(ValueError, match="precision must be one of float32, float16, int8, binary"):
        model.embed(files, precision="int4")
    with pytest.raises(ValueError, match="embeddings of one precision, got floats and int8"):
        model.similarity(x, few)


@pytest.mark.parametrize("metric", ["inner", "euclidean"])
def test_int8_of_metrics_that_lengths_matter_to_wants_a_limit(files, metric):
    model = network(metric)
    with pytest.raises(ValueError, match=rf"int8 of a {metric} Model wants model\.limit"):
        model.embed(files, precision="int8")
    x = model.embed(files)
    model.limit = x.abs().max().item()
    few = model.embed(files, precision="int8")
    step = model.limit / 127
    torch.testing.assert_close(few.float() * step, x, rtol=0, atol=step / 2 * 1.001)
    error = 2 * step * 10 * (1 + x.abs().max().item())
    torch.testing.assert_close(
        model.similarity(few, few), model.similarity(x, x), rtol=0, atol=error
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_backbone_of_another_precision(files, dtype):
    model = photographs()
    wanted = model.embed(files)
    model.backbone.to(dtype)
    found = model.embed(files)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found, wanted).min() > 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_embeddings(files):  # pragma: no cover
    model = photographs()
    cpu, gpu = (model.embed(files, device=device) for device in ("cpu", "cuda"))
    assert gpu.device.type == "cpu"
    assert torch.cosine_similarity(cpu, gpu).min() > 0.9999


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (["absent.png"], "absent.png: missing"),
        ([b"\x89PNG"], "got bytes"),
        (b"\x89PNG", "got bytes"),
        (3, "wanted paths, PIL images, arrays, tensors, a Dataset or a Split, got int"),
        (np.zeros((2, 16, 16, 5)), r"wanted a picture .* got \(16, 16, 5\)"),
        (np.zeros((16, 16, 2), np.uint8), r"wanted a picture"),
        (np.full((16, 16, 3), 255.0), r"floats in 0\.\.1 \(not normalised\), got float64 in 255"),
        (torch.full((3, 16, 16), -1.0), "floats in 0..1"),
        (np.full((16, 16, 3), 300), "whole numbers in 0..255"),
        (np.full((16, 16, 3), np.nan), "floats in 0..1"),
        (torch.zeros(4, 7), "this Model has no head on stored features"),
        ([PIXELS[0], [1.0, 2.0]], "wanted vectors or pictures, got both"),
        ("folder", "wanted a picture file, got a folder"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, monkeypatch, source, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=said) as caught:
        network().embed(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: network("cosin"), "unknown metric 'cosin': did you mean 'cosine'"),
        (lambda: network().embed(PIXELS, batch=0), "batch must be a whole number of 1 or more"),
        (lambda: network().embed(PIXELS, device="tpu"), "device must be auto, cpu, cuda or cuda:N"),
        (lambda: network().embed(nk.load("mnist-5k")), "embed its train, query or gallery"),
        (lambda: head().embed(torch.zeros(2, 7)), "wanted vectors of 8 numbers, got 7"),
        (lambda: head().embed([[1.0], [1.0, 2.0]]), r"vectors of one size, got sizes \[1, 2\]"),
        (lambda: head().embed([[np.inf] * 8]), "not finite in float32"),
        (lambda: nk.Model.pretrained("network"), "pretrained wanted lite0, lite2 or timm:NAME"),
        (lambda: nk.Model.pretrained("timm:resnet181"), "unknown model timm:resnet181"),
    ],
)
def test_errors_say_what_was_wanted(act, said):
    with pytest.raises(ValueError, match=said) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_truncated_image_object_is_refused(files):
    whole = io.BytesIO()
    Image.fromarray(drawing(200, 200, 0)).save(whole, "JPEG")
    cut = Image.open(io.BytesIO(whole.getvalue()[:2000]))
    with pytest.raises(ValueError, match="truncated or damaged"):
        network().embed(cut)


def test_a_pretrained_backbone_by_name(files):
    model = nk.Model.pretrained("lite0", size=64)
    x = model.embed(files)
    assert x.shape == (3, model.dim) == (3, 1280)
    assert (model.metric, model.preprocessing.short_side) == ("cosine", 256)  # type: ignore
    assert nk.Model.pretrained("lite0").preprocessing.height == 224  # type: ignore[union-attr]


def test_the_identity_is_of_weights_preprocessing_and_metric_alone():
    model = network()
    assert model.identity == network().identity
    other = network()
    other.classes, other.recipe, other.limit = ("a",), {"lr": 1.0}, 3.0
    assert other.identity == model.identity
    with torch.no_grad():
        next(other.backbone.parameters())[0] += 1e-6
    changed = {other.identity, network("euclidean").identity, model.at_size(15).identity}
    assert len(changed | {model.identity}) == 4
