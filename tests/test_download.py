"""Claim: what comes from the network came over https, is what was wanted, and is whole."""

import hashlib
import io
from http.client import HTTPMessage, IncompleteRead
from urllib.request import Request

import pytest
import torch

import nearkin
from nearkin import download
from nearkin.download import Secure, Unfetched, fetch, opened
from nearkin.models import hub

CONTENT = b"near means kin" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


def answering(monkeypatch, answers):
    """Addresses answer with bytes, or raise."""

    def answer(address):
        found = answers[address]
        if isinstance(found, Exception):
            raise found
        return io.BytesIO(found)

    monkeypatch.setattr(download, "opened", answer)


def test_the_first_address_that_gives_the_file_is_enough(tmp_path, monkeypatch):
    answers = {"a": OSError("unreachable"), "b": b"a page that says sorry", "c": CONTENT}
    answering(monkeypatch, answers)
    for digits in (64, 8):
        fetch(tmp_path / "below" / "x", ["a", "b", "c"], SHA[:digits])
        assert (tmp_path / "below" / "x").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "below").iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CONTENT[:-1], "its sha256 is"),
        (CONTENT + b"x", "it is longer than 14,000 bytes"),
        (IncompleteRead(b""), "IncompleteRead"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionResetError(104, "reset\nby peer"), "reset by peer"),
    ],
)
def test_what_is_not_the_file_leaves_what_was_there(tmp_path, monkeypatch, answer, said):
    answering(monkeypatch, {"a": answer})
    (tmp_path / "x").write_text("before")
    with pytest.raises(Unfetched, match=said) as error:
        fetch(tmp_path / "x", ["a"], SHA, most=len(CONTENT))
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "before"


def test_our_own_disk_is_not_the_networks_fault(tmp_path, monkeypatch):
    answering(monkeypatch, {"a": CONTENT})
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fetch(tmp_path / "file" / "x", ["a"], SHA)


@pytest.mark.parametrize(
    "address", ["http://x.example/a", "ftp://x.example/a", "file:///etc/hosts"]
)
def test_only_https_is_asked_and_only_https_is_followed(address):
    with pytest.raises(Unfetched, match="https"):
        opened(address)
    request = Request("https://x.example/a")
    with pytest.raises(Unfetched, match="without https"):
        Secure().redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), address)


def test_a_digest_too_short_to_tell_anything_is_refused(tmp_path):
    with pytest.raises(ValueError, match="8 to 64 digits"):
        fetch(tmp_path / "x", [], "")


def test_no_file_of_ours_asks_without_https():
    from pathlib import Path

    for path in Path(nearkin.__file__).parent.rglob("*.py"):
        text = path.read_text().replace("http://127.0.0.1", "").replace("http://{shown}", "")
        assert "http://" not in text, path


def hub_folder(tmp_path, content, digest):
    """A file as the hub's folder has it: a link to one that is named by its digest."""
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(content)
    path = tmp_path / "snapshots" / "model.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(f"../blobs/{digest}")
    return path


def test_weights_of_the_hub_are_those_that_their_digest_names(tmp_path):
    git = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    for digest in (SHA, git):
        hub.refuse_changed(hub_folder(tmp_path, CONTENT, digest))
        changed = hub_folder(tmp_path, CONTENT[:-1] + b"x", digest)
        with pytest.raises(ValueError, match="its digest is") as error:
            hub.refuse_changed(changed)
        assert "\n" not in str(error.value)
    plain = tmp_path / "plain"
    plain.write_bytes(CONTENT)
    hub.refuse_changed(plain)  # no links on this disk


def test_a_model_is_made_of_the_file_that_was_checked(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save

    from nearkin.models import make

    state = timm.create_model("test_resnet").state_dict()
    content = save({name: tensor + 1 for name, tensor in state.items()})
    path = hub_folder(tmp_path, content, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(path))
    made = make("timm:test_resnet", {}, (3, 64, 64), 8)
    name = "conv1.0.weight"
    assert torch.equal(made.trunk.model.state_dict()[name], state[name] + 1)  # type: ignore
    path.resolve().write_bytes(content[:-4] + b"1234")
    with pytest.raises(ValueError, match="its digest is"):
        make("timm:test_resnet", {}, (3, 64, 64), 8)


def test_weights_of_an_address_are_held_to_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    address = f"https://x.example/net-{SHA[:8]}.pth"
    answering(monkeypatch, {address: CONTENT})
    assert hub.fetched_file(address).read_bytes() == CONTENT
    answering(monkeypatch, {})
    assert hub.fetched_file(address).name == f"net-{SHA[:8]}.pth"  # fetched once
    with pytest.raises(ValueError, match="without a checksum"):
        hub.fetched_file("https://x.example/net.pth.tar")


def test_a_hub_without_the_weights_says_so(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def absent(*_, **__):
        raise LocalEntryNotFoundError("no such entry")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    with pytest.raises(LocalEntryNotFoundError):
        hub.hub_weights("test_resnet")
