"""An index made in parts holds what one process would have put into it, to the last bit."""

import io
import json
import tarfile

import numpy as np
import pytest

import nearkin as nk
from nearkin.app.main import main
from nearkin.search import intake, parts
from nearkin.search.store import PLAIN
from test_index import COLOURS, folder, model, photograph

__all__ = ["folder"]


@pytest.fixture(autouse=True)
def small_commits(monkeypatch):
    monkeypatch.setattr(intake, "AT_ONCE", 4)
    monkeypatch.setattr(parts, "AT_ONCE", 4)
    monkeypatch.setattr(nk.Index, "write_light", lambda self: False)  # takes long, is the Model's


@pytest.fixture
def saved(tmp_path) -> str:
    """The folder of a Model."""
    return str(model().save(tmp_path / "model"))


def contents(path) -> tuple:
    """Everything that an index holds, but for the numbers of its versions."""
    index = nk.Index(path)
    items = index.store.scan([*PLAIN, "thumbnail", "vector"])
    return items.to_pydict(), index.description, [p.name for p in sorted(path.glob("model/*"))]


def test_an_index_of_parts_is_that_of_one_process(saved, folder, tmp_path, capsys):
    (folder / "red" / "bad.png").write_bytes(b"no picture")
    whole, joined = tmp_path / "whole", tmp_path / "joined"
    main(["index", saved, str(folder), "--output", str(whole)])
    line = ["index", saved, str(folder), "--output", str(joined), "--shards", "3", "--shard"]
    for shard in (1, 2, 0):
        assert not joined.exists()
        main([*line, str(shard)])
    assert contents(joined) == contents(whole)
    receipt = json.loads((tmp_path / "joined.receipt.json").read_text())
    assert (receipt["photographs"], receipt["items"]) == (16, 15)
    assert receipt["each_item_once"] is True
    assert receipt["model"] == nk.Index(whole).description.identity
    assert sum(part["items"] for part in receipt["shards"]) == 15
    assert str(nk.Index(joined).update()) == "15 unchanged, 1 unreadable pictures left out"
    capsys.readouterr()
    main([*line, "0"])
    assert "brings it up to date" in capsys.readouterr().out


def test_a_part_that_was_killed_goes_on_and_one_of_other_photographs_is_made_anew(
    saved, folder, tmp_path, monkeypatch, capsys
):
    joined, whole = tmp_path / "joined", tmp_path / "whole"
    line = ["index", saved, str(folder), "--output", str(joined), "--shards", "2"]
    real, commits = intake.commit, []

    def dying(*words):
        if len(commits) == 1:
            raise KeyboardInterrupt
        commits.append(1)
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "commit", dying)
        with pytest.raises(SystemExit):
            main(line)
    assert not list(tmp_path.rglob("part.json"))
    with monkeypatch.context() as patch:
        patch.setattr(intake, "commit", lambda *words: commits.append(1) or real(*words))
        main([*line, "--shard", "0"])
    assert len(commits) == 2  # of its two
    photograph(folder / "blue" / "0.png", COLOURS["green"], 5)
    with pytest.raises(SystemExit):
        main([*line, "--shard", "1"])
    assert "parts are of other photographs" in capsys.readouterr().err
    assert not joined.exists()
    main(line)
    main(["index", saved, str(folder), "--output", str(whole)])
    assert contents(joined) == contents(whole)


def test_archives_are_unpacked_into_folders_of_their_classes(saved, folder, tmp_path):
    archive = tmp_path / "shop.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.rglob("*.png")):
            key = f"{path.parent.name}-{path.stem}"
            for name, content in ((f"{key}.png", path.read_bytes()), (f"{key}.cls", b"a/../b")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    joined, whole = tmp_path / "joined", tmp_path / "whole"
    main(["index", saved, str(archive), "--output", str(joined), "--shards", "2"])
    (unpacked,) = (p for p in (tmp_path / "joined.photos").iterdir() if p.name[0] != ".")
    assert [p.name for p in unpacked.iterdir()] == ["a_.._b"]
    main(["index", saved, str(unpacked), "--output", str(whole)])
    assert contents(joined) == contents(whole)
    assert nk.Index(joined).labels() == {"a_.._b": 15}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shards", "2", "--shard", "2"], "wanted a shard of 0 to 1"),
        (["--shards", "2", "--watch"], "without --watch"),
        (["--shard", "0"], "--shard goes with --shards"),
        (["--jobs", "2"], "go with --shards"),
    ],
)
def test_what_does_not_go_together_is_one_line(more, message, saved, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["index", saved, str(folder), "--output", str(tmp_path / "x"), *more])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_parts_are_whole_commits():
    photos = [parts.Photo(str(i), 1, 1) for i in range(np.random.default_rng(0).integers(30, 40))]
    for shards in (1, 3, 20):
        found = [parts.of_part(photos, i, shards) for i in range(shards)]
        assert [p for part in found for p in part] == photos
        assert all(len(part) % 4 == 0 for part in found[:-1])
