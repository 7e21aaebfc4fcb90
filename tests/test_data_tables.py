"""Claim: a table of pictures with classes is a data set, or one line says what is wrong with it."""

import pytest
from PIL import Image

from nearkin.data import load


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def pictures(tmp_path):
    """img/0.png ... img/11.png, of twelve shades."""
    (tmp_path / "img").mkdir()
    for i in range(12):
        Image.new("L", (12, 10), 20 * i).save(tmp_path / "img" / f"{i}.png")
    return tmp_path


def written(folder, lines, name="images.csv", encoding="utf-8"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def rows(*splits):
    """path, class: three pictures of each of four classes; and split, where it is asked for."""
    for i in range(12):
        part = [splits[i % len(splits)]] if splits else []
        yield ",".join([f"img/{i}.png", "abcd"[i // 3], *part])


@pytest.mark.parametrize("name", ["{}", "csv:{}"])
def test_classes_come_from_the_table(pictures, name):
    path = written(pictures, ["path,class", *rows()])
    splits = load(name.format(path))
    assert (splits.train.classes, splits.query.classes) == (("a", "b"), ("c", "d"))
    assert splits.train.names == tuple(f"img/{i}.png" for i in range(6))
    assert splits.query.tensor[:, 0, 0, 0].tolist() == [20 * i for i in range(6, 12)]
    assert splits.showable
    assert splits.query.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("splits", "variant"),
    [
        (["train", "train", "test"], ""),
        (["Training", "train", "Validation"], ", tested on val"),
        (["train", "val", "testing"], ", val not used"),
    ],
)
def test_a_column_says_what_trains_and_what_is_tested(pictures, splits, variant):
    path = written(pictures, ["path;label;split", *(r.replace(",", ";") for r in rows(*splits))])
    found = load(str(path))
    assert found.shared_classes
    assert found.variant == "all 12 x 10 px" + variant
    assert len(found.query) == 4
    assert len(found.train) == (4 if "val" in splits else 8)


def test_tables_of_oml_and_of_other_systems(pictures):
    lines = ["\ufefflabel,path,split,is_query,is_gallery,x_1"]
    for i in range(12):
        part = "train" if i < 6 else "validation"
        flags = "," if i < 6 else "True,False" if i % 2 else "False,True"
        lines.append(f"{i // 3},img\\{i}.png,{part},{flags},7")
    found = load(str(written(pictures, lines)))
    assert found.train.classes == ("0", "1")
    assert found.query.names == ("img/7.png", "img/9.png", "img/11.png")
    assert found.gallery.names == ("img/6.png", "img/8.png", "img/10.png")
    both = [line.replace("True,False", "1,1").replace("False,True", "1,1") for line in lines]
    alike = load(str(written(pictures, both)))
    assert alike.gallery is alike.query
    assert len(alike.query) == 6


def test_boxes_of_oml_are_told_to_be_unused(pictures):
    lines = ["label,path,split,is_query,is_gallery,x_1,x_2,y_1,y_2"]
    for i in range(12):
        part, flags = ("train", ",") if i < 6 else ("validation", "True,True")
        lines.append(f"{i // 3},img/{i}.png,{part},{flags},1,4,2,5")
    found = load(str(written(pictures, lines)))
    assert found.variant == "all 12 x 10 px, boxes not cut out"
    assert found.unused == ("columns x_1, y_1, x_2, y_2: pictures are read whole",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_as_spreadsheets_write_it(pictures, encoding):
    lines = ["path\tclass", *(row.replace(",a", ",Käse").replace(",", "\t") for row in rows())]
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    path = pictures / "images.tsv.csv"
    path.write_bytes(mark + "\r\n".join(lines).encode(encoding))
    found = load(str(path))
    assert "Käse" in {*found.train.classes, *found.query.classes}


@pytest.mark.parametrize(
    "lines",
    [
        ["", "", "path,class", *rows()],
        ["path,class", "  ", *rows(), " , ", "\t"],
        ["sep=;", "path;class", *(row.replace(",", ";") for row in rows())],
        ["sep=|", "path|class", *(row.replace(",", "|") for row in rows())],
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_blank_lines_and_what_excel_writes_first_are_no_rows(pictures, lines, ends):
    (pictures / "odd.csv").write_bytes(ends.join([*lines, ""]).encode())
    plain = load(str(written(pictures, ["path,class", *rows()])))
    found = load(str(pictures / "odd.csv"))
    assert found.train.names == plain.train.names
    assert found.query.classes == plain.query.classes


def test_another_encoding_is_one_line(pictures):
    path = pictures / "images.csv"
    path.write_bytes("path,class\nimg/0.png,Käse\n".encode("latin-1"))
    with pytest.raises(ValueError, match="wanted text in UTF-8 or UTF-16"):
        load(str(path))


def test_a_picture_may_lie_anywhere(pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures))
    (pictures / "tables").mkdir()
    lines = ["path,class"]
    for i, start in enumerate([f"{pictures}/img", "~/img", "../img"] * 4):
        lines.append(f"{start}/{i}.png,{'ab'[i // 6]}")
    assert len(load(str(written(pictures / "tables", lines))).train) == 6


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["path,class,Class", "img/0.png,a,b"], "wanted one column class, got 2"),
        (["path,class", f"{'a' * 5000}.png,a", *rows()], "1 of 13 files .* such as a{200}$"),
        (["path,klass", "img/0.png,a"], "wanted a column class .or label, category., got"),
        (["picture,class", "img/0.png,a"], "wanted a column path"),
        (["path,class"], "a row for each picture"),
        ([], "a row for each picture"),
        (["path,class", *rows(), "img/99.png,a", "9.png,b"], "2 of 14 files .* such as img/99"),
        (["path,class", *rows(), "img/0.png,d"], "line 14: img/0.png has two classes, 'a' and 'd'"),
        (["path,class", "img/0.png,", "img/1.png,b"], "line 2: wanted a path and a class"),
        (["path,class,split", *rows("train", "tset")], "split must be train.* got 'tset'"),
        (["path,class,split", *rows("train", "")], "wanted split in every row, or in none"),
        (["path,class,split", *rows("train")], "wanted rows to test on"),
        (["path,class,split", *rows("test")], "wanted rows of split train, got test"),
        (["path,class", "img/0.png,a,b,c"], "not a whole table"),
        (["path,class", "img/0.png,a", "img/1.png,a"], "two classes or more, got 1"),
        (['path,class', '"img/0.png,a'], "not a whole table"),
        (["path,class,is_train", *rows("True", "False")], "column is_train tells a part: call it"),
        (["", "", "path,class", "", "img/0.png,"], "line 5: wanted a path and a class"),
        (["sep=;", "path;class", "img/0.png;"], "line 3: wanted a path and a class"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_one_line(pictures, lines, said):
    with pytest.raises(ValueError, match=said) as error:
        load(str(written(pictures, lines)))
    assert "\n" not in str(error.value)


def test_a_table_that_is_none(pictures):
    with pytest.raises(ValueError, match="no such file"):
        load(f"csv:{pictures / 'absent.csv'}")
    with pytest.raises(ValueError, match="text in UTF-8"):
        load(str(written(pictures, ["path,class", "img/é.png,é"], encoding="latin-1")))


def test_only_line_ends_end_a_row(pictures):
    strange = {
        "a": '"a\nb"',
        "b": "b\u2028c",
        "c": "c\x85\x0cd",
        "d": "d",
    }  # which str.splitlines parts at
    lines = [",".join([each.split(",")[0], strange[each.split(",")[1]]]) for each in rows()]
    splits = load(str(written(pictures, ["path,class", *lines])))
    found = {*splits.train.classes, *splits.query.classes}
    assert found == {"a\nb", *(text for text in strange.values() if '"' not in text)}


def test_a_picture_is_one_however_its_path_is_written(pictures):
    for again in ("./img/0.png", "img/../img/0.png", f"{pictures}/img/0.png"):
        path = written(pictures, ["path,class", *rows(), f"{again},d"])
        with pytest.raises(ValueError, match=r"line 14: .* has two classes, 'a' and 'd'"):
            load(str(path))
    path = written(pictures, ["path,class", *rows(), "./img/0.png,a"])
    with pytest.warns(UserWarning, match="1 row names a picture that stands before"):
        assert len(load(str(path)).train) == 7


def test_columns_that_are_not_read_are_told(pictures):
    lines = [f"{row},{i},x" for i, row in enumerate(rows())]
    splits = load(str(written(pictures, ["path,class,id,subset", *lines])))
    assert splits.unused == ("columns id, subset",)
    for parts, told in ((["train", "test"], "test and train"), (["Query", "gallery"], "gallery")):
        path = written(pictures, ["path,class,subset", *rows(*parts)])
        with pytest.raises(ValueError, match=f"column subset tells {told}.*: call it split"):
            load(str(path))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["train", "test", "query"], "query not used"),
        (["train", "test", "query", "gallery"], "query not used, gallery not used"),
        (["train", "val", "gallery"], "tested on val, gallery not used"),
        (["train", "query", "gallery"], ""),
    ],
)
def test_parts_that_are_not_used_are_told(pictures, parts, told):
    splits = load(str(written(pictures, ["path,class,split", *rows(*parts)])))
    found = splits.variant.split(", ")
    assert ", ".join(part for part in found if "px" not in part and "known" not in part) == told


def test_a_row_is_named_by_its_line(pictures):
    lines = ["path,class", "", *rows(), "", '"img/0.png","a', 'b"']
    with pytest.raises(ValueError, match=r"line 17: img/0\.png has two classes"):
        load(str(written(pictures, lines)))
