"""`nearkin index`, `search` and `calibrate`: photographs that answer to photographs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from csv import writer
from functools import partial
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from nearkin.app.output import Parts
from nearkin.names import Plain, visible

if TYPE_CHECKING:
    from nearkin.search.index import Index
    from nearkin.search.values import Answer, Changes

WATCH_SECONDS = 2.0


def index(
    first: Positional[str],
    photos: Positional[tuple[Path, ...]] = (),
    output: Path | None = None,
    labels: Literal["none", "parent", "top", "nested"] = "parent",
    add: tuple[Path, ...] = (),
    label: str = "",
    remove: Mapping[str, Plain] | None = None,
    decisions: Path | None = None,
    cluster: Path | None = None,
    tidy: bool = False,
    store: str = "",
    watch: bool = False,
    parts: OmitArgPrefixes[Parts] = Parts(),
) -> None:
    """Embed photographs by a Model into an index that `search` asks; only what changed is embedded.

    Example: nearkin index grocery photos/ --output shop

    Example: nearkin index grocery photos/ --output shop --shards 8 --jobs 2

    Example: nearkin index shop --add more/ --label Oat-Latte

    Example: nearkin index shop --remove label=Sour-Milk

    Example: nearkin index shop --decisions decisions.csv

    Example: nearkin index shop --cluster groups.csv

    Args:
        first: an index, or for a new one a Model: its folder, an --out folder with one finished
            run, or a pretrained backbone (lite0, lite2, timm:NAME).
        photos: folders of photographs, or .csv files with the columns path and class, or with
            --shards .tar archives; of an index by default those of before.
        output: folder of a new index.
        labels: what a photograph is called: none; parent, its folder's name; top, the first folder
            below the one given; nested, all folders from there on.
        add: files or folders to add, beside the folders that are kept up to date.
        label: the label of all that is added.
        remove: label=NAME or path=FILE, to be removed.
        decisions: CSV file that `nearkin explore` or --cluster saved: photographs to relabel and to
            drop.
        cluster: CSV file to write: the photographs without a label, in groups by whom they are near
            to, for you to look at, to change, and to hand to --decisions.
        tidy: compact the table, and forget its versions that are older than a week.
        store: of a new index, address of a Qdrant server that is to hold its items, such as
            http://127.0.0.1:6333; by default they lie in the index's folder.
        watch: stay, and follow the folders until interrupted.
    """
    from nearkin.app.index_parts import index_parts
    from nearkin.search.index import CARD

    held = (Path(first).expanduser() / CARD).is_file()
    if held and output:
        raise ValueError(f"{first} is an index already: leave out --output")
    if not held and (add or remove or decisions or cluster or tidy or (watch and not output)):
        raise ValueError(
            f"{first} holds no index: --add, --remove, --decisions, --cluster, --tidy and --watch "
            "want one"
        )
    if not held and not (output and photos):
        raise ValueError("a new index wants a Model, photographs, and --output FOLDER")
    if store and held:
        raise ValueError(f"{first} is an index already: --store is chosen when it is made")
    if label and not add:
        raise ValueError("--label goes with --add")
    if parts.shards:
        if held or store or watch:
            raise ValueError("--shards makes a new index, in its own folder, without --watch")
        index_parts(first, photos, Path(str(output)), labels, parts)
        return
    parts.refuse_without_shards()
    opened = (
        open_index(first)
        if held
        else new_index(first, Path(str(output)), store, photos, labels, may_be_empty=watch)
    )
    if remove:
        print(f"{opened.path}: {removed(opened, remove)} removed")
    if add:
        found = with_bar(opened.add, *add, label=label or None, labels=labels)
        say(opened, found)
    if decisions:
        say(opened, opened.decide(decisions))
    if photos or not (add or remove or decisions or cluster or tidy):
        say(opened, with_bar(opened.update, *photos, labels=labels))
    if tidy:
        print(f"{opened.path}: compacted, {opened.tidy()} old versions forgotten")
    if cluster:
        found = opened.groups()
        found.write(cluster.expanduser())
        print(f"{cluster}: {found}")
    if not held:
        opened.write_light()
    opened.write_snapshot()
    while watch:
        time.sleep(WATCH_SECONDS)
        changes = opened.update()
        if str(changes) != f"{changes.unchanged:,} unchanged":
            say(opened, changes)
            opened.write_snapshot()


def search(
    index: Positional[Path],
    photos: Positional[tuple[Path, ...]],
    k: Annotated[int, arg(aliases=["-k"])] = 10,
    label: str = "",
    recall: float | None = None,
    rerank: bool = False,
    csv: bool = False,
    json: bool = False,
    html: bool = False,
) -> None:
    """Find the photographs of an index that are nearest to these: names, labels, similarities.

    Example: nearkin search shop new.jpg -k 5

    Example: nearkin search shop inbox/ --csv

    Example: nearkin search shop inbox/ --html > found.html

    Args:
        index: a folder that `nearkin index` made.
        photos: photographs, or folders of them.
        k: how many to find for each.
        label: search among those with this label alone.
        recall: search approximately, finding this share of what an exact search finds or more; by
            default exactly.
        rerank: put the 100 nearest in the order in which they are after all have listened to their
            own neighbours; more of all kin are found where the nearest are mostly kin.
        csv: print a table, a line a hit.
        json: print a list of answers.
        html: print a page with the photographs.
    """
    from nearkin.search.index import LIGHT
    from nearkin.search.photos import file_of, find

    if csv + json + html > 1:
        raise ValueError("wanted one of --csv, --json and --html")
    opened = open_index(index)
    missing = "" if find_spec("onnxruntime") else "onnxruntime is not installed"
    missing = missing if (opened.path / LIGHT).is_file() else "no ONNX form beside this index"
    if missing:
        print(f"nearkin: {missing}: torch answers, slower", file=sys.stderr)
    found = find(photos)
    if not found.photos:
        raise ValueError(f"no photograph to search with: {found}")
    files = [file_of(photo.path) for photo in found.photos]
    names = [photo.path for photo in found.photos]
    answers = opened.search(
        files, k, label=label or None, names=names, recall=recall, rerank=rerank
    )
    if json:
        print(dumps([as_plain(answer) for answer in answers], indent=2))
    elif csv:
        write_csv(answers)
    elif html:
        from nearkin.search.found import page

        print(page(opened, answers))
    else:
        print("\n\n".join(in_words(answer, opened.similarity_name) for answer in answers))


def calibrate(
    index: Positional[Path], false_accept: float = 0.01, confidence: float = 0.95, seed: int = 0
) -> None:
    """Choose the similarity below which a photograph counts as unknown, and store it in the index.

    Of photographs of classes that the index has never seen, at most a share of --false-accept is
    then taken for one that it knows, with this confidence over draws of classes.

    Example: nearkin calibrate shop --false-accept 0.05

    Args:
        index: a folder that `nearkin index` made, whose photographs have labels.
        false_accept: the share that is promised.
        confidence: of the promise.
        seed: of the draws of classes.
    """
    print(open_index(index).calibrate(false_accept, confidence, seed))


def open_index(path: str | Path) -> Index:
    """The index of a folder."""
    from nearkin.search.index import Index

    return Index(path)


def new_index(
    model: str,
    output: Path,
    store: str,
    photos: Sequence[str | Path],
    labels: str,
    may_be_empty: bool = False,
) -> Index:
    """An empty index of a Model, or of a pretrained backbone by name; or the one that the same
    command has begun. Where the photographs cannot be found, nothing is made."""
    from nearkin.app.export import open_model
    from nearkin.search.index import CARD, Index
    from nearkin.search.photos import find, find_some

    (find if may_be_empty else find_some)(photos, labels)
    made = open_model(model)
    if made.preprocessing is None:
        raise ValueError(
            f"{model} is a Model of vectors: an index of photographs wants one of them"
        )
    if not store and (output.expanduser() / CARD).is_file():
        begun = Index(output)
        if begun.description.identity == made.identity:
            return begun
    return Index.create(made, output, store or None)


def removed(opened: Index, remove: Mapping[str, Plain]) -> int:
    """Remove what label=NAME or path=FILE says; how many photographs that were."""
    if len(remove) != 1 or not remove.keys() <= {"label", "path"}:
        raise ValueError(f"--remove wanted label=NAME or path=FILE, got {dict(remove)}")
    return opened.remove(**{name: str(value) for name, value in remove.items()})


def with_bar(act: Any, *sources: Path, **options: Any) -> Changes:
    """An update with a bar on the terminal."""
    from nearkin.runs.log import bar

    with bar() as shown:
        return act(*sources, **options, progress=partial(shown.count, "embedding"))


def say(opened: Index, changes: Changes) -> None:
    """What an update did, in one line."""
    labels = len({label for label in opened.labels() if label is not None})
    print(f"{opened.path}: {changes}; holds {len(opened):,} photographs of {labels:,} labels")


def as_plain(answer: Answer) -> dict:
    """An answer as plain data."""
    from dataclasses import asdict

    return asdict(answer)


def write_csv(answers: list[Answer]) -> None:
    """A line for each photograph that was found."""
    out = writer(sys.stdout)
    out.writerow(["query", "rank", "path", "label", "similarity", "vote", "share", "known"])
    for answer in answers:
        vote = [
            answer.label or "",
            answer.share or "",
            "" if answer.known is None else answer.known,
        ]
        for rank, hit in enumerate(answer.hits, 1):
            out.writerow([answer.query, rank, hit.path, hit.label or "", hit.similarity, *vote])


def in_words(answer: Answer, similarity: str) -> str:
    """An answer as a person reads it."""
    labels = [visible(hit.label or "-") for hit in answer.hits]
    width = max(5, *map(len, labels))
    verdict = answer.verdict + ("; re-ranked" if answer.reranked else "")
    if answer.recall:
        verdict += f"; {answer.recall}"
    lines = [
        f"{visible(answer.query)}: {visible(verdict)}",
        f"  {similarity}  {'label':<{width}}  photograph",
    ]
    lines += [
        f"  {hit.similarity:>{len(similarity)}.4f}  {label:<{width}}  {visible(hit.path)}"
        for hit, label in zip(answer.hits, labels, strict=True)
    ]
    return "\n".join(lines)
