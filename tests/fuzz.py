"""Strangers' files of every kind, changed at random: each is read, or refused in one line.

`KINDS` names the kinds. `attempts(kind, count, seed, folder)` changes a sound file `count` times,
has it read, and yields what was wrong: a traceback, a refusal of several lines or without the
file's name, more than SECONDS, or more than MEMORY. tests/test_fuzz.py takes a slice of each kind,
and `make campaign` 2,000 files of each.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import random
import re
import resource
import shutil
import signal
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nearkin.names import TOO_LARGE

SECONDS = 20
MEMORY = 1_600_000_000
"""Bytes by which the process may grow: BYTES of data/pictures.py, and something more."""
ADDRESSES = 16 * 2**30
"""Bytes of addresses that the process may have, most of which torch and its like never fill."""
MODES = {"gif": "P", "pgm": "L", "tif": "RGBA", "png": "RGBA"}
PICTURES = ("avif", "bmp", "gif", "heic", "jpg", "pgm", "png", "ppm", "tif", "webp")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    make: puts sound files into an empty folder, and returns the one that is changed.
    read: reads it, or raises what the command line makes one line of.
    change: (content, draw) -> content.
    names: whether a refusal is to name the file.
    share: of as many files as others have, where each takes a process of its own.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    change: Callable[[bytes, random.Random], bytes]
    names: bool = True
    share: float = 1.0


class Hang(BaseException):
    """A file took too long."""


def attempts(kind: Kind, count: int, seed: int, folder: Path) -> Iterator[str]:
    """Change the file of a kind so many times; yields what is wrong with how it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    path = kind.make(folder)
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] == resource.RLIM_INFINITY:  # the machine is others' too
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, before[1]))
    try:
        yield from changed(kind, count, seed, path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def changed(kind: Kind, count: int, seed: int, path: Path) -> Iterator[str]:
    """What is wrong with how the changed files are read."""
    sound, draw = path.read_bytes(), random.Random(seed)
    with contextlib.suppress(Exception):  # what a first reading imports is no part of the time
        kind.read(path)
    if fault := fault_of(kind, path, sound=True):
        yield f"the sound file: {fault}"
    for number in range(round(kind.share * count)):
        content = kind.change(sound, draw)
        path.write_bytes(content)
        before = peak()
        start = time.perf_counter()
        fault = fault_of(kind, path)
        took, grown = time.perf_counter() - start, peak() - before
        if took > SECONDS:
            fault = fault or f"took {took:.0f} s"
        if grown > MEMORY:
            fault = fault or f"took {grown / 1e9:.1f} GB"
        if fault:
            yield f"number {number} of seed {seed}: {fault}"
    path.write_bytes(sound)


def fault_of(kind: Kind, path: Path, sound: bool = False) -> str:
    """What is wrong with how a file is read; "" for nothing. A sound one must not be refused."""
    silent = io.StringIO()
    with (
        limited(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
    ):
        warnings.simplefilter("ignore")
        try:
            kind.read(path)
        except (ValueError, OSError) as error:
            said = str(error)
            if sound:
                return f"is refused: {error!r:.300}"
            if isinstance(error, UnicodeError) or type(error).__name__.endswith("DecodeError"):
                return f"a bare {error!r:.200}"
            if "\n" in said.strip():
                return f"several lines: {said!r:.300}"
            return "" if path.name in said or not kind.names else f"does not name it: {said!r:.200}"
        except Hang:
            return "hangs"
        except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
            large = isinstance(error, MemoryError) or re.search(TOO_LARGE, str(error))
            said = " ".join(str(error).split())
            return "" if large else f"{type(error).__name__}: {said:.300}"
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
        except BaseException as error:  # as of Rust's panics
            return f"{type(error).__name__}: {error!r:.300}"
    return ""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """What takes longer than it may is stopped."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak() -> int:
    """The most memory that the process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The file with bits turned, a piece cut out, copied elsewhere, or numbers made huge."""
    found = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(found) or 1), draw.randint(1, 64)
        match draw.randrange(7):
            case 0:
                found[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[: draw.randrange(len(found) + 1)][:length]
            case 3:
                found[at : at + 8] = draw.choice(
                    [b"\xff" * 8, b"\x00" * 8, struct.pack("<q", 2**40)]
                )
            case 4:  # a number of a header, of either order
                found[at : at + 4] = struct.pack(draw.choice("<>") + "I", draw.choice(NUMBERS))
            case 5:
                found[at : at + 1] = bytes([found[at] ^ 1 << draw.randrange(8)]) if found else b""
            case _:
                del found[draw.randrange(len(found) + 1) :]
    return bytes(found)


NUMBERS = (0, 1, 2, 255, 256, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
ODD: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "",
    "x",
    -1,
    0,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    -1e300,
    "../../x",
    "/etc/passwd",
    "a\nb",
    "a\u2028b",
    "\x00",
    "\ud800",
    "n" * 5000,
    [[[[]]]],
    {"a": {"b": None}},
    ["a", 1],
    [None],
    {"": 0},
)
"""Values that nobody meant."""


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Where the parts of a JSON value stand in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*at, key)
        if isinstance(part, dict | list):
            yield from places(part, (*at, key))


def twisted(value: Any, draw: random.Random, odd: tuple[Any, ...] = ODD) -> Any:
    """A JSON value of which parts are gone, of another kind, doubled or under other names."""
    found = deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        ways = list(places(found)) if isinstance(found, dict | list) else []
        if not ways or draw.random() < 0.02:
            return draw.choice(odd)
        *way, last = draw.choice(ways)
        inside = found
        for key in way:
            inside = inside[key]
        match draw.randrange(8):
            case 0:
                del inside[last]
            case 1 if isinstance(inside, dict):
                inside[draw.choice(["new", "", "a\nb", last])] = inside.pop(last)
            case 2 if isinstance(inside, list):
                inside.append(deepcopy(inside[last]))
            case 3:
                inside[last] = [inside[last]]
            case 4 if isinstance(inside[last], int | float):
                inside[last] = draw.choice([-inside[last], inside[last] * 10**9, str(inside[last])])
            case _:
                inside[last] = deepcopy(draw.choice(odd))
    return found


def twisted_json(content: bytes, draw: random.Random) -> bytes:
    """A JSON file, its values twisted; now and then its text."""
    if draw.random() < 0.2:
        return mutated(content, draw)
    return json.dumps(twisted(json.loads(content), draw)).encode()


def twisted_lines(content: bytes, draw: random.Random) -> bytes:
    """A file of JSON lines, one of which is twisted, cut, doubled or joined with the next."""
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    if draw.random() < 0.2:
        lines[at] = mutated(lines[at], draw)
    else:
        lines[at] = json.dumps(twisted(json.loads(lines[at]), draw)).encode()
    between = draw.choice([b"\n"] * 8 + [b"\r\n", b"\n\n", b"\r", b"\xe2\x80\xa8"])
    return between.join(lines) + draw.choice([b"\n", b"", b"\n", b'{"a": 1']) * (len(lines) > 0)


def twisted_text(content: bytes, draw: random.Random) -> bytes:
    """A table in which cells, lines and encodings are others."""
    if draw.random() < 0.3:
        return mutated(content, draw)
    lines = content.decode().splitlines()
    at = draw.randrange(len(lines))
    cells = lines[at].split(",")
    cell = draw.randrange(len(cells))
    odd = [str(each) for each in ODD if each != "\ud800"]
    match draw.randrange(6):
        case 0:
            cells[cell] = draw.choice([*odd, '"', '"a', "a,b", ";", "\t", "~", "..", "a\\b"])
        case 1:
            del cells[cell]
        case 2:
            cells.insert(cell, draw.choice(odd))
        case 3:
            cells[cell] = cells[cell].upper() + " "
        case 4:
            cells = lines[draw.randrange(len(lines))].split(",")
        case _:
            cells = [draw.choice(["", " ", "#", ",", ",,,,,,"])]
    lines[at] = ",".join(cells)
    coded = draw.choice(["utf-8"] * 6 + ["utf-16", "utf-8-sig", "utf-32"])
    return draw.choice(["\n", "\n", "\r\n", "\r"]).join(lines).encode(coded)


def make_picture(ending: str, folder: Path) -> Path:
    """A small picture, with EXIF data where the format has them."""
    path = folder / f"x.{ending}"
    pixels = np.random.default_rng(0).integers(0, 255, (24, 31, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(MODES.get(ending, "RGB"))
    if ending == "heic":
        from test_data_pictures import HEIC_PICTURE

        path.write_bytes(base64.b64decode(HEIC_PICTURE))
        return path
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"exif": exif} if ending in ("jpg", "png", "tif", "webp") else {}
    image.save(path, **options)
    return path


def read_picture(path: Path) -> object:
    from nearkin.data.pictures import read

    return read(path, 3, short_side=16)


def make_arrays(folder: Path) -> Path:
    x, y = np.random.default_rng(0).normal(size=(12, 3)), np.repeat(np.arange(4), 3)
    np.savez(folder / "x.npz", x=x, y=y, names=np.array([f"{i}.png" for i in range(12)]))
    return folder / "x.npz"


def read_arrays(path: Path) -> object:
    from nearkin.data import load
    from nearkin.data.arrays import read_arrays

    return read_arrays(path), load(f"features:{path}")


def make_rows(folder: Path) -> Path:
    """Rows of three runs and a measurement, as a study and single runs leave them."""
    from finished import finished
    from nearkin.runs.recipe import Recipe
    from nearkin.runs.row import Files, Measurement
    from nearkin.runs.store import Store

    store = Store(folder)
    for seed in (0, 1):
        row = finished(Recipe(seed=seed), 0.5 + seed / 10)
        store.append(replace(row, files=Files(f"runs/{row.hash}"), confusion=((3, 1), (0, 4))))
    store.append(replace(finished(Recipe(loss="triplet"), 0.4), study="attention"))
    store.append(Measurement("abc", {"a": 1.0, "b": [1, 2]}, study="proxygml-cost"))
    return folder / "rows.jsonl"


def read_rows(path: Path) -> object:
    from nearkin.runs.recipe import Recipe
    from nearkin.runs.store import Store

    store = Store(path.parent)
    return store.find(Recipe()), store.stored()


def report(path: Path) -> None:
    """The page of the folder that a file of rows, or a note, lies in."""
    from nearkin.app.report import report

    folder = path.parent if path.name == "rows.jsonl" else path.parents[1]
    shutil.rmtree(folder / "report", ignore_errors=True)
    report(folder)


def make_note(folder: Path) -> Path:
    from nearkin.runs.store import Store
    from nearkin.studies.notes import Note
    from nearkin.studies.study import Case

    make_rows(folder)
    rows = Store(folder).rows()
    cases = {Case("a", seed=i): row.key for i, row in enumerate(rows)}
    Note("attention-x", "attention", "nearkin study attention", "x", cases).write(folder)
    return folder / "pages" / "attention-x.json"


def make_recipe(folder: Path) -> Path:
    from nearkin.runs.recipe import Recipe

    options = {"margin": 0.3}
    recipe = Recipe(backbone="mlp", dim=2, loss="triplet", loss_options=options, batch=4)
    plain = replace(recipe, per_class=2).plain()
    (folder / "recipe.json").write_text(json.dumps(plain))
    return folder / "recipe.json"


def read_recipe(path: Path) -> object:
    """The run that it asks for, on a few points, built and not carried out."""
    from nearkin.app.parse import read_recipe
    from nearkin.data import load
    from nearkin.runs.run import Run

    if not (path.parent / "x.npz").exists():
        make_arrays(path.parent)
    name = f"features:{path.parent / 'x.npz'}"
    recipe = replace(read_recipe(path), data=name)
    return recipe.hash, Run(recipe, load(name), "cpu")


def make_checkpoint(folder: Path) -> Path:
    """What a run leaves that was stopped after a step."""
    from nearkin.runs.checkpoint import save
    from nearkin.runs.loop import train

    run = checkpointed(folder)
    next(train(run))
    save(run, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def checkpointed(folder: Path) -> Any:
    from nearkin.data import load
    from nearkin.runs.recipe import Recipe
    from nearkin.runs.run import Run

    if not (folder / "x.npz").exists():
        make_arrays(folder)
    name = f"features:{folder / 'x.npz'}"
    recipe = Recipe(data=name, backbone="mlp", dim=2, loss="proxy-gml", batch=4, per_class=2)
    return Run(recipe, load(name), "cpu")


def read_checkpoint(path: Path) -> None:
    """Take it up and go on for a step: what does not fit could write past the ends of tensors."""
    from nearkin.runs.checkpoint import restore
    from nearkin.runs.loop import train

    run = checkpointed(path.parent)
    restore(run, path)
    next(iter(train(run)), None)


def twisted_checkpoint(content: bytes, draw: random.Random) -> bytes:
    """A checkpoint whose values are twisted, or whose tensors have other shapes and types."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    odd = (
        *ODD,
        torch.zeros(2),
        torch.zeros(0),
        torch.ones((), dtype=torch.int64),
        torch.ones(3, 2),
    )
    file = io.BytesIO()
    torch.save(twisted(plain_dicts(state), draw, odd), file)
    return file.getvalue()


def plain_dicts(value: Any) -> Any:
    """OrderedDicts as dictionaries, so that they can be changed alike."""
    if isinstance(value, dict):
        return {key: plain_dicts(part) for key, part in value.items()}
    return [plain_dicts(part) for part in value] if isinstance(value, list) else value


def make_tensors(folder: Path, old: bool = False) -> Path:
    kept = {
        "step": 3,
        "a": torch.arange(6.0).view(2, 3),
        "b": {"c": torch.ones(2).long()},
        "d": [1],
    }
    torch.save(kept, folder / "x.pt", _use_new_zipfile_serialization=not old)
    return folder / "x.pt"


def make_safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def read_tensors(path: Path) -> object:
    from nearkin.tensorfiles import read_tensors

    return read_tensors(path)


def make_model(name: str, folder: Path) -> Path:
    """A Model of numbers, and the one of its files that is changed."""
    import nearkin as nk
    from nearkin.models import make

    torch.manual_seed(0)
    net: Any = make("mlp", {"hidden": 4}, (6,), 3)
    nk.Model(net, None, "euclidean", classes=("a", "b")).save(folder / "model")
    return folder / "model" / name


def read_model(path: Path) -> object:
    """The Model, whose config vouches for whatever its files are now, as a liar's would."""
    import nearkin as nk
    from nearkin.models import folder as layout

    config = path.parent / "config.json"
    with contextlib.suppress(Exception):
        found = json.loads(config.read_bytes())
        block = found["nearkin"]
        block.pop("seal", None)
        for name in block["files"]:
            block["files"][name] = layout.sha256((path.parent / name).read_bytes())
        block["seal"] = layout.seal(block)
        config.write_text(json.dumps(found))
    return nk.Model.load(path.parent).dim


def make_table(folder: Path) -> Path:
    lines = ["path,class,split"]
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'abcd'[i // 3]},{'train' if i < 6 else 'test'}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def read_table(path: Path) -> object:
    from nearkin.data import load

    return load(f"csv:{path}")


def make_decisions(folder: Path) -> Path:
    lines = ["path,class,action", "a/1.png,a,keep", "a/2.png,b,relabel", "b/3.png,,drop"]
    (folder / "decisions.csv").write_text("\n".join(lines))
    return folder / "decisions.csv"


def read_decisions(path: Path) -> object:
    from nearkin.search.decisions import read_decisions

    return read_decisions(path)


def make_kept_decisions(folder: Path) -> Path:
    path = folder / "decisions.json"
    path.write_text('{"a/1.png": ["keep", "a"], "a/2.png": ["relabel", "b"], "c": ["drop", ""]}')
    return path


def read_kept_decisions(path: Path) -> object:
    from collections import Counter

    from nearkin.search.decisions import Decisions

    return Decisions(path).applied([], Counter())


def make_description(folder: Path) -> Path:
    from nearkin.search.values import Description

    threshold = {"value": 0.5, "far": 0.01}
    Description(1, "ab" * 16, "cosine", 8, (("photos", "folders"),), threshold).write(
        folder / "index.json"
    )
    return folder / "index.json"


def read_description(path: Path) -> object:
    from nearkin.search.values import Description

    return Description.read(path)


def make_choice(folder: Path) -> Path:
    from nearkin.measure.statistics import Estimate
    from nearkin.runs.recipe import Recipe
    from nearkin.studies.chosen import Choice, Tried

    estimate = Estimate(0.5, 0.4, 0.6, 10)
    Choice(
        format=1,
        method="LDA",
        recipe=Recipe(loss="triplet").plain(),
        backbone={"name": "lite0", "options": {}, "size": 224},
        data="features:x.npz",
        fingerprint="ab" * 8,
        metric="recall@1",
        tried=(Tried("LDA", 0.5, 1.0), Tried("margin", 0.4, 2.0)),
        test=estimate,
        untrained=estimate,
        difference=estimate,
        sure=True,
        doubt="",
        seconds=3.0,
    ).write(folder / "choice.json")
    return folder / "choice.json"


def read_choice(path: Path) -> object:
    from nearkin.studies.chosen import Choice

    choice = Choice.read(path)
    return choice.recipe_for("features:y.npz").hash


def make_archive(ending: str, folder: Path) -> Path:
    """An archive of a few folders; what it is unpacked to lies beside it."""
    path = folder / f"x.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(4):
                archive.writestr(f"set/{i % 2}/{i}.txt", f"number {i}\n" * 50)
        return path
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for i in range(4):
            member, content = tarfile.TarInfo(f"set/{i % 2}/{i}.txt"), b"number\n" * 50
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed = {
        "tar": bytes,
        "tar.gz": gzip.compress,
        "tar.bz2": bz2.compress,
        "tar.xz": lzma.compress,
    }
    path.write_bytes(packed[ending](file.getvalue()))
    return path


def read_archive(path: Path) -> None:
    """Unpack it into a folder of its own; whatever it holds, nothing may stand beside that."""
    from nearkin.data.archives import unpack

    root = path.parent / "root"
    shutil.rmtree(root, ignore_errors=True)
    refused = False
    try:
        unpack(path, root)
    except (ValueError, OSError):
        refused = True
        raise
    finally:
        beside = {each.name for each in path.parent.iterdir()} - {path.name, "root"}
        left = list(root.iterdir()) if refused and root.exists() else []
        if beside or left:
            raise AssertionError(f"beside the folder {beside}, in it {left}")


def make_idx(packed: bool, folder: Path) -> Path:
    content = b"\x00\x00\x08\x03" + struct.pack(">3i", 5, 4, 4) + bytes(range(80))
    path = folder / f"x-ubyte{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def read_idx(path: Path) -> object:
    from nearkin.data.sets.digits import read_idx

    return read_idx(path)


def make_matlab(folder: Path) -> Path:
    from scipy.io import savemat

    kinds = [
        (name, object) for name in ("fname", "class", "bbox_x1", "bbox_x2", "bbox_y1", "bbox_y2")
    ]
    entries = np.array([(f"{i}.jpg", i, 1, 9, 1, 9) for i in range(1, 4)], dtype=kinds)
    savemat(folder / "x.mat", {"annotations": entries})
    return folder / "x.mat"


def read_matlab(path: Path) -> object:
    from nearkin.data.sets.benchmarks import annotated

    return annotated(path, "fname")


def make_list(folder: Path) -> Path:
    (folder / "images.txt").write_text("1 a/1.jpg\n2 a/2.jpg\n3 b/3.jpg\n")
    return folder / "images.txt"


def read_list(path: Path) -> object:
    from nearkin.data.sets.benchmarks import table

    return table(path, int, str)


def make_steps(folder: Path) -> Path:
    lines = ["step,loss,lr,seconds", *(f"{i},{1 / i},0.1,{i}.5" for i in range(1, 6))]
    (folder / "steps.csv").write_text("\n".join(lines) + "\n")
    return folder / "steps.csv"


def read_steps(path: Path) -> object:
    from nearkin.runs.log import bytes_until, read_steps

    return read_steps(path), bytes_until(path, 3)


def make_cached(name: str, folder: Path) -> Path:
    """A cache of decoded pictures, and the one of its files that is changed."""
    for i in range(3):
        pixels = np.full((5 + i, 6, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    read_cached(folder / "caches" / "any" / name)
    (found,) = (path for path in (folder / "caches").iterdir() if path.is_dir())
    return found / name


def read_cached(path: Path) -> object:
    """The cache is of this machine, and so trusted; but what a crash left of it is made anew."""
    import os

    from nearkin.data.cache import photographs

    before = os.environ.get("NEARKIN_CACHE")
    os.environ["NEARKIN_CACHE"] = str(path.parents[1])
    try:
        root = path.parents[2]
        pictures, kept = photographs("set", root, [f"{i}.png" for i in range(3)])
        heights = pictures.heights[kept]
        boxes = torch.stack([0 * heights, 0 * heights, heights, pictures.widths[kept]], 1)
        return list(pictures.cuts(boxes))
    finally:
        os.environ.pop("NEARKIN_CACHE")
        if before is not None:
            os.environ["NEARKIN_CACHE"] = before


KINDS: dict[str, Kind] = {
    **{
        f"picture {each}": Kind(partial(make_picture, each), read_picture, mutated)
        for each in PICTURES
    },
    "npz": Kind(make_arrays, read_arrays, mutated),
    "rows": Kind(make_rows, read_rows, twisted_lines),
    "rows, reported": Kind(make_rows, report, twisted_lines, names=False),
    "note": Kind(make_note, report, twisted_json, names=False),
    "recipe": Kind(make_recipe, read_recipe, twisted_json, names=False),
    "checkpoint": Kind(make_checkpoint, read_checkpoint, twisted_checkpoint),
    "checkpoint, bytes": Kind(make_checkpoint, read_checkpoint, mutated),
    "tensors": Kind(make_tensors, read_tensors, mutated),
    "tensors of before": Kind(partial(make_tensors, old=True), read_tensors, mutated),
    "safetensors": Kind(make_safetensors, read_tensors, mutated),
    "model, config": Kind(
        partial(make_model, "config.json"), read_model, twisted_json, names=False
    ),
    "model, weights": Kind(
        partial(make_model, "model.safetensors"), read_model, mutated, names=False
    ),
    "table": Kind(make_table, read_table, twisted_text, names=False),
    "decisions": Kind(make_decisions, read_decisions, twisted_text),
    "decisions kept": Kind(make_kept_decisions, read_kept_decisions, twisted_json),
    "description": Kind(make_description, read_description, twisted_json),
    "choice": Kind(make_choice, read_choice, twisted_json, names=False),
    **{
        f"archive {each}": Kind(partial(make_archive, each), read_archive, mutated)
        for each in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
    },
    "idx": Kind(partial(make_idx, False), read_idx, mutated),
    "idx.gz": Kind(partial(make_idx, True), read_idx, mutated),
    "matlab": Kind(make_matlab, read_matlab, mutated, share=0.1),
    "list": Kind(make_list, read_list, twisted_text),
    "steps": Kind(make_steps, read_steps, twisted_text),
    "cache, header": Kind(partial(make_cached, "header.json"), read_cached, mutated, names=False),
}


def seed_of(name: str) -> int:
    """A seed of its own for each kind."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
