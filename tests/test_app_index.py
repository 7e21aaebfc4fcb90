"""`nearkin index`, `search` and `calibrate`, as they are typed."""

import csv
import io
import json
import subprocess
import sys

import pytest

from nearkin.app import index as app_index
from nearkin.app.main import main
from nearkin.search.index import Index
from test_index import COLOURS, folder, model, photograph, photographs  # noqa: F401 - a fixture


def made(path) -> None:
    """A Model, photographs and their index."""
    model().save(path / "grocery")
    photographs(path / "photos")
    words = [str(path / "grocery"), str(path / "photos"), "--output", str(path / "shop")]
    main(["index", *words])


@pytest.fixture
def shop(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Index, "write_light", lambda index: False)  # it takes seconds
    made(tmp_path)
    assert "shop: 15 added; holds 15 photographs of 3 labels" in capsys.readouterr().out
    return str(tmp_path / "shop")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """The folder of an index that no test changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Index, "write_light", lambda index: False)
        made(path := tmp_path_factory.mktemp("unchanged"))
    return path


def refused(capsys, *words: str | None) -> str:
    """The one line on stderr of a command that is refused."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    assert left.value.code == 2
    return captured.err.splitlines()[-1]


def test_names_that_a_terminal_would_act_on_are_escaped(shop, tmp_path, capsys):
    photograph(tmp_path / "new" / "a\n\x1b[31mb\u202e\u3000é.png", COLOURS["green"], 99)
    main(["index", shop, "--add", str(tmp_path / "new"), "--label", "x\n\x1b[1m"])
    capsys.readouterr()
    main(["search", shop, str(tmp_path / "new"), "-k", "1"])
    captured = capsys.readouterr().out
    assert len(captured.splitlines()) == 3
    assert captured.isprintable() or not set(captured) & set("\x1b\u202e")
    assert "a\\n\\x1b[31mb\\u202e\u3000é.png" in captured
    assert "x\\n\\x1b[1m" in captured
    main(["search", shop, str(tmp_path / "new"), "-k", "1", "--json"])  # for programs, as it is
    assert json.loads(capsys.readouterr().out)[0]["hits"][0]["label"] == "x\n\x1b[1m"
    assert "\\x1b[1m" in refused(capsys, "index", shop, "--remove", "path=\x1b[1mx")


@pytest.mark.parametrize("words", [["search", "", "x.png"], ["search", "shop", ""]])
def test_an_empty_path_is_not_the_working_folder(words, capsys):
    assert refused(capsys, *words) == "nearkin: wanted a path, got ''"


def test_the_way_from_photographs_to_answers(shop, tmp_path, capsys):
    photograph(tmp_path / "new" / "green one.png", COLOURS["green"], 99)
    main(["search", shop, str(tmp_path / "new"), "-k", "2"])
    first, head, *hits = capsys.readouterr().out.splitlines()
    assert first.endswith("green one.png: green (100 % of the nearest labelled)")
    assert head.split() == ["cosine", "label", "photograph"]
    assert len(hits) == 2
    assert "/green/" in hits[0]

    main(["search", shop, str(tmp_path / "new"), "-k", "3", "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["label"] for row in rows} == {"green"}

    main(["search", shop, str(tmp_path / "new"), "--label", "red", "--json"])
    (answer,) = json.loads(capsys.readouterr().out)
    assert [hit["label"] for hit in answer["hits"]] == ["red"] * 5


def test_adding_removing_and_keeping_up(shop, tmp_path, capsys):
    photograph(tmp_path / "more" / "a.png", (200, 200, 20), 1)
    main(["index", shop, "--add", str(tmp_path / "more"), "--label", "Oat-Latte"])
    assert "1 added; holds 16 photographs of 4 labels" in capsys.readouterr().out
    main(["index", shop])
    assert "15 unchanged; holds 16" in capsys.readouterr().out
    main(["index", shop, "--remove", "label=Oat-Latte"])
    assert "1 removed" in capsys.readouterr().out
    main(["calibrate", shop, "--false-accept", "0.05"])
    assert "takes about 97 more classes than these 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "SHOP", "--output", "x"], "is an index already: leave out --output"),
        (["index", "SHOP", "--label", "x"], "--label goes with --add"),
        (["index", "SHOP", "--remove", "colour=red"], "--remove wanted label=NAME or path=FILE"),
        (["index", "SHOP", "nowhere"], "nowhere: no such file or folder"),
        (
            ["index", "GROCERY", "--add", "x"],
            "holds no index: --add, --remove, --decisions, --cluster, --tidy and --watch want one",
        ),
        (["index", "GROCERY"], "a new index wants a Model, photographs, and --output FOLDER"),
        (["index", "lite9", ".", "--output", "new"], "lite0"),
        (["index", "GROCERY", "nowhere", "--output", "new"], "nowhere: no such file or folder"),
        (
            ["search", "SHOP", "photos/red", "--label", "Oat"],
            "the index holds no photograph of label 'Oat'",
        ),
        (["search", "SHOP", "photos/red", "-k", "0"], "k must be 1 or more, got 0"),
        (["search", "GROCERY", "x.png"], "holds no index"),
        (["search", "SHOP", "nowhere.png"], "nowhere.png: no such file or folder"),
        (["search", "SHOP", "shop/images.lance"], "no photograph to search with"),
        (["search", "SHOP"], "no photograph to search with: 0 photographs"),
        (["calibrate", "SHOP", "--false-accept", "2"], "far must be between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_one_line(unchanged, capsys, monkeypatch, words, message):
    monkeypatch.chdir(unchanged)
    names = {"SHOP": "shop", "GROCERY": "grocery"}
    assert message in refused(capsys, *(names.get(word, word) for word in words))
    assert sorted(p.name for p in unchanged.iterdir()) == ["grocery", "photos", "shop"]


def test_a_search_from_the_shell_imports_little(folder, tmp_path):  # noqa: F811
    """And finds what torch finds."""
    made = Index.create(model(), tmp_path / "shop")
    made.update(folder, labels="parent")
    assert made.write_light()
    assert made.write_snapshot()
    photograph(tmp_path / "new.png", COLOURS["blue"], 99)
    script = (
        "import sys; from nearkin.app.main import main; main(sys.argv[1:]); "
        "assert not {'torch', 'lancedb', 'pandas'} & sys.modules.keys()"
    )
    words = ["search", str(made.path), str(tmp_path / "new.png"), "--json"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch answers" not in done.stderr
    (found,), (wanted,) = json.loads(done.stdout), made.search([tmp_path / "new.png"])
    assert {hit["label"] for hit in found["hits"][:5]} == {"blue"}
    assert [hit["similarity"] for hit in found["hits"]] == pytest.approx(
        [hit.similarity for hit in wanted.hits], abs=1e-3
    )
    without = "import sys; sys.modules['onnxruntime'] = None; " + script.partition("; assert")[0]
    done = subprocess.run([sys.executable, "-c", without, *words], capture_output=True, text=True)
    assert "onnxruntime is not installed: torch answers, slower" in done.stderr
    assert {hit["label"] for hit in json.loads(done.stdout)[0]["hits"][:5]} == {"blue"}


def test_a_search_without_the_onnx_form_says_so(unchanged, capsys, monkeypatch):
    monkeypatch.chdir(unchanged)
    photo = next((unchanged / "photos").rglob("*.png"))
    main(["search", "shop", str(photo)])
    assert "no ONNX form beside this index: torch answers, slower" in capsys.readouterr().err


def test_a_page_of_what_was_found(shop, tmp_path, capsys):
    photograph(tmp_path / "new" / "<b>green.png", COLOURS["green"], 99)
    main(["search", shop, str(tmp_path / "new"), "-k", "3", "--html"])
    page = capsys.readouterr().out
    assert page.count("<img") == 4
    assert page.count("data:image/jpeg") == 4
    assert "&lt;b&gt;green.png: green (100 % of the nearest labelled)" in page
    assert "http" not in page


def test_one_form_at_a_time(shop, tmp_path, capsys):
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    said = refused(capsys, "search", shop, tmp_path / "new.png", "--csv", "--json")
    assert said == "nearkin: wanted one of --csv, --json and --html"


def test_watching_follows_the_folder_until_interrupted(shop, tmp_path, capsys, monkeypatch):
    new = tmp_path / "photos" / "red" / "new.png"

    def nothing():
        pass

    def half_a_file():
        photograph(new, COLOURS["red"], 50)
        new.with_name("half.png").write_bytes(new.read_bytes()[:200])

    def the_rest():
        new.with_name("half.png").write_bytes(new.read_bytes())
        new.unlink()

    def interrupt():
        raise KeyboardInterrupt

    turns = iter([nothing, half_a_file, the_rest, interrupt])
    monkeypatch.setattr(app_index.time, "sleep", lambda seconds: next(turns)())
    with pytest.raises(SystemExit) as left:
        main(["index", shop, "--watch"])
    assert left.value.code == 130
    first, *lines = capsys.readouterr().out.splitlines()
    assert "15 unchanged; holds 15" in first
    assert len(lines) == 2  # nothing is said where nothing has changed
    assert "1 added" in lines[0]
    assert "left out" in lines[0]
    assert "holds 16" in lines[1]
    held = {path.rsplit("/", 1)[1] for path in Index(shop).vectors()[0] if "/red/" in path}
    assert "half.png" in held
    assert "new.png" not in held


@pytest.mark.parametrize("more", [(), ("--shards", 2)])
def test_an_index_of_no_photograph_is_refused_and_leaves_nothing(unchanged, tmp_path, capsys, more):
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "notes.txt").write_text("no photograph")
    words = ["index", unchanged / "grocery", tmp_path / "photos", "--output", tmp_path / "new"]
    said = refused(capsys, *words, *more)
    assert said == f"nearkin: {tmp_path / 'photos'}: no photograph to make an index of"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
