"""Claim: files of tensors are read in one place, which runs nothing of them and is not led astray;
so are JSON, npz files and pictures, each in its own."""

import ast
import io
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import nearkin
from fuzz import mutated
from nearkin import tensorfiles
from nearkin.tensorfiles import parse_safetensors, read_tensors

SOURCE = Path(nearkin.__file__).parent
STATE = {"a": torch.arange(6.0).view(2, 3), "b": {"c": torch.ones(2, dtype=torch.int64)}, "d": [1]}


def written(path: Path, found: Any, **options: Any) -> Path:
    torch.save(found, path, **options)
    return path


def refused(path: Path, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_has_saved_is_read(tmp_path, zipped):
    path = written(tmp_path / "x.pt", STATE, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    assert torch.equal(found["a"], STATE["a"])
    assert found["d"] == [1]
    tied = torch.ones(3)
    found = read_tensors(written(path, {"a": tied, "b": tied[1:], "c": tied.expand(1, 3)}))
    assert found["b"].shape == (2,)


def test_what_safetensors_has_saved_is_read(tmp_path):
    content = save({"a": STATE["a"]})
    (tmp_path / "x.safetensors").write_bytes(content)
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["a"], STATE["a"])
    assert torch.equal(parse_safetensors(content, "x")["a"], STATE["a"])


def endless() -> list:
    found: list = []
    found.append(found)
    return found


def doubled(times: int) -> list:
    """A list of 2^times values in a few bytes."""
    found: list = [1]
    for _ in range(times):
        found = [found, found]
    return found


ODD = {
    "a tensor of more numbers than it stores": lambda: torch.zeros(1).expand(10**9),
    "a matrix of one number": lambda: torch.zeros(1, 1).expand(10**5, 10**5),
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "a compressed sparse tensor": lambda: torch.eye(3).to_sparse_csr(),
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "a tensor without storage": lambda: torch.ones(3, device="meta"),
    "a list that holds itself": endless,
    "a list of lists of lists": lambda: doubled(60),
    "a set": lambda: {1, 2},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ODD)
def test_what_claims_more_than_it_is_is_refused(tmp_path, what):
    refused(written(tmp_path / "x.pt", {"a": {"b": [ODD[what]()]}}), "broken, or not tensors and")


def repacked(path: Path, change) -> None:
    """The archive again, each part as `change(name, content)` packs it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            change(archive, name, content)


def test_an_archive_that_inflates_is_refused_before_it_is_unpacked(tmp_path):
    path = written(tmp_path / "x.pt", {"a": torch.zeros(10_000_000)})
    kind = zipfile.ZIP_DEFLATED
    repacked(path, lambda archive, name, content: archive.writestr(name, content, kind))
    assert path.stat().st_size < 100_000
    refused(path, "its parts are compressed, as torch leaves none")


def test_an_archive_whose_parts_overlap_is_refused(tmp_path):
    path = written(tmp_path / "x.pt", {"a": torch.zeros(1000)})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.filelist += archive.filelist  # each part once more, at the same place
    refused(path, r"its parts claim more than the [\d,]+ bytes that there are")


def test_a_file_of_more_values_than_anybody_saves_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorfiles, "MOST", 100)
    read_tensors(written(tmp_path / "x.pt", {"a": list(range(50))}))
    refused(written(tmp_path / "y.pt", {"a": list(range(200))}), "more than 100 values")
    many = {f"a{i}": torch.ones(1) for i in range(200)}
    refused(written(tmp_path / "z.pt", many), "it has 2.. parts")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_no_file_is_said_to_be_none(tmp_path, suffix):
    import os

    refused(tmp_path / f"absent.{suffix}", "no such file")
    (tmp_path / f"folder.{suffix}").mkdir()
    refused(tmp_path / f"folder.{suffix}", "no such file")
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    refused(tmp_path / f"pipe.{suffix}", "no such file")
    for content in (b"", b"\x00" * 100, b"\xff" * 16, pickle.dumps({"a": [1] * 5}, protocol=4)):
        (tmp_path / f"x.{suffix}").write_bytes(content)
        refused(tmp_path / f"x.{suffix}", "broken, or not tensors and plain data alone")


class Mark:
    def __reduce__(self):
        return exec, ("import nearkin; nearkin.SPRUNG = True",)


def samples() -> list[tuple[str, bytes]]:
    """Whole files of every kind: an archive of torch's, one of before, a safetensors file."""
    kept = {"step": 3, "epochs": [{"steps": 2}], **STATE}
    found = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        file = io.BytesIO()
        torch.save(kept, file, **options)
        found.append(("x.pt", file.getvalue()))
    trap = io.BytesIO()
    torch.save({"a": Mark()}, trap)
    return [*found, ("x.pt", trap.getvalue()), ("x.safetensors", save({"a": STATE["a"]}))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", range(4))
def test_two_thousand_broken_files_are_read_or_refused(tmp_path, kind):
    name, content = samples()[kind]
    draw = random.Random(kind)
    for _ in range(500):
        (tmp_path / name).write_bytes(mutated(content, draw))
        try:
            said = str(read_tensors(tmp_path / name) and tmp_path / name)
        except ValueError as error:
            said = str(error)
        assert said.startswith(f"{tmp_path / name}")
        assert "\n" not in said
    assert not hasattr(nearkin, "SPRUNG")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_no_traceback(content):
    with pytest.raises(ValueError, match="x: broken"):
        parse_safetensors(content, "x")


READERS = {
    "torch.load": {"tensorfiles.py"},
    "safetensors": {"tensorfiles.py", "models/folder.py"},  # the other saves with it
    # words of recipes and command lines, and what our own processes answer
    "json.loads": {"files.py", "names.py", "app/parse.py", "data/heic.py", "data/sets/matlab.py"},
    "loadmat": {"data/sets/matlab_reader.py"},
    "json.load": set(),
    "np.load": set(),
    "pickle": {"runs/ranks.py"},  # of its own errors, from one process to another; no file
    "ZipFile": {"tensorfiles.py", "data/arrays.py", "data/archives.py"},
    "Image.open": {
        "data/pictures.py",
        "data/heic.py",
        "report/pictures.py",
    },  # the other reads its own drawing
}


def names_in(path: Path) -> set[str]:
    """What a file calls or imports, as it is written."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module).split(".")[0], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Call):
            found |= {ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]}
    return found


@pytest.mark.parametrize("name", READERS)
def test_each_kind_of_file_is_read_in_one_place(name):
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if name in names_in(path)
    }
    assert found == READERS[name]
