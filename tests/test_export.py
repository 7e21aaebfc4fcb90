"""A Model in another form gives the same embeddings, whatever the size of the batch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import nearkin as nk
from nearkin.app.main import main
from nearkin.data import pictures
from nearkin.search import export as module
from nearkin.search.export import Deployed, export, golden_items, refuse_others
from nearkin.search.light import Light
from test_index import COLOURS, model, photograph


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_onnx_is_one_file_that_embeds_as_the_model_does(tmp_path, metric):
    net = model(metric=metric)
    export(net, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    light = Light(tmp_path / "model.onnx")
    assert (light.identity, light.metric) == (net.identity, metric)
    files = []
    for i, colour in enumerate(COLOURS.values()):
        files.append(tmp_path / f"{i}.png")
        photograph(files[-1], colour, i)
    found, wanted = light.embed(files), net.embed(files).numpy()
    if metric == "cosine":
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosine = (
        (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    )
    assert (cosine > 0.9999).all()


def test_the_light_form_reduces_large_pictures_by_the_number_of_its_model(tmp_path, monkeypatch):
    net: Any = model()
    net.preprocessing = replace(net.preprocessing, above=10**6)
    export(net, tmp_path / "model.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    seen, reduction = [], pictures.reduction
    monkeypatch.setattr(pictures, "reduction", lambda *a: seen.append(reduction(*a)) or seen[-1])
    found = Light(tmp_path / "model.onnx").prepared(tmp_path / "a.png").astype(int)
    wanted = net.preprocessing.prepare(tmp_path / "a.png").numpy()
    assert np.abs(found - wanted).max() <= 1
    assert seen[0] == seen[1] > 1


def test_torch_export_takes_any_batch(tmp_path):
    net = model()
    export(net, tmp_path / "model.pt2", "pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    pixels = torch.stack([pixels for pixels, _ in golden_items(net)])
    for count in (1, 5):
        assert torch.allclose(program(pixels[:count]), Deployed(net)(pixels[:count]), atol=1e-5)


def test_timm_reads_its_folder(tmp_path):
    torch.manual_seed(0)
    backbone = nk.models.make("timm:resnet10t", {"weights": "none"}, (3, 32, 32), 8)
    net = nk.Model(backbone, nk.Model.pretrained("timm:resnet10t", weights="none").preprocessing)
    export(net, tmp_path / "net", "timm")
    again = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(pixels), net.backbone(pixels))
    with pytest.raises(ValueError, match="timm has no model of this shape"):
        export(model(), tmp_path / "no", "timm")


def test_a_form_that_embeds_otherwise_is_refused():
    net = model()
    pixels = torch.stack([pixels for pixels, _ in golden_items(net)])
    frozen = Deployed(net)(pixels).detach().numpy()
    with pytest.raises(ValueError, match=r"the onnx form embeds golden/\d-.* at a cosine of"):
        refuse_others(net, lambda pixels: frozen[::-1][: len(pixels)], "onnx")


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model().save(tmp_path / "grocery")
    written = []
    monkeypatch.setattr(module, "export", lambda net, path, form: written.append((path, form)))
    main(["export", "grocery"])
    assert "grocery.onnx: Model(" in capsys.readouterr().out
    main(["check", "grocery"])
    assert [form for _, form in written] == ["onnx", "pt2", "onnx"]
    assert capsys.readouterr().out.count("equal") == 2
    (tmp_path / "there").touch()
    with pytest.raises(SystemExit):
        main(["export", "grocery", "--output", "there"])
    assert "there exists already: name another --output" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no onnx"])
def test_what_is_no_form_of_a_model_is_one_line(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="is not the ONNX form of a Model"):
        Light(tmp_path / "x.onnx")
