"""The command line: `nearkin list`, `train`, `study`, `report`, `evaluate`, `embed`, `data`.

Bad input ends in one line on stderr and exit code 2; an interrupt in 130. Whatever was finished
before is stored, and the same command goes on from there.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from tyro.conf import OmitArgPrefixes, Positional

from nearkin import measure, registry
from nearkin.app.parse import one_line, parse, split_recipe_file
from nearkin.data import Split
from nearkin.data.splits import in_classes_of
from nearkin.names import TOO_LARGE, construct, look_up, typed, unknown
from nearkin.registry import METRICS, STUDIES
from nearkin.runs.recipe import Plain, Recipe

Options = Mapping[str, Plain]


@dataclass(frozen=True)
class Means:
    """Where the data are, and on what the work is done."""

    root: Path | None = None
    """folder of the data sets; by default NEARKIN_DATA, else ./data"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """what to compute on"""
    threads: int = 0
    """threads of each process; 0: all cores, shared between the jobs"""
    download: bool = False
    """fetch a data set that is missing, where that can be done"""
    skip_bad: bool = False
    """leave out pictures that cannot be read, and count them"""

    def place(self):
        """The engine's form of this."""
        from nearkin.runs.engine import Place

        root = str(self.root) if self.root else None
        return Place(root, self.device, self.download, self.skip_bad, self.threads)


@dataclass(frozen=True)
class Where:
    """Where the results go, and by what means."""

    out: Path = Path("out")
    """folder of the results"""
    means: OmitArgPrefixes[Means] = Means()

    def place(self):
        """The engine's form of the means."""
        return self.means.place()


def list_names() -> None:
    """Print every name that the other commands take.

    Example: nearkin list
    """
    kinds = {
        "data sets": registry.DATASETS,
        "backbones": registry.BACKBONES,
        "losses": [*registry.LOSSES, *registry.RIVALS, "pml:CLASS"],
        "miners": [f"pml:{name}" for name in registry.MINERS],
        "graph builders": registry.BUILDERS,
        "graph layers": registry.LAYERS,
        "samplers": registry.SAMPLERS,
        "augmentations": registry.AUGMENTS,
        "optimizers": registry.OPTIMIZERS,
        "schedules": registry.SCHEDULES,
        "precisions": registry.PRECISIONS,
        "metrics": registry.METRICS,
        "refinements": registry.SOURCES,
        "studies": registry.STUDIES,
    }
    for kind, names in kinds.items():
        print(f"{kind}: {', '.join(names)}")


def train(recipe: OmitArgPrefixes[Recipe], where: OmitArgPrefixes[Where] = Where()) -> None:
    """Train and evaluate one recipe, and store its row under --out.

    --recipe FILE reads one from JSON, a row's too; other flags change what it says.

    Example: nearkin train --data mnist-5k --loss ratio-triplet --dim 64 --epochs 8

    Example: nearkin train --recipe my.json --loss contrastive --loss-options margin=0.5
    """
    from nearkin.runs.engine import run
    from nearkin.runs.log import bar
    from nearkin.runs.store import Store

    if Store(where.out).find(recipe):
        print(f"nearkin: {recipe.hash} is stored in {where.out}: nothing was run", file=sys.stderr)
    with bar() as shown:
        row = run(recipe, where.out, place=where.place(), bar=shown)
    print(json.dumps({"hash": row["hash"], "status": row["status"], **row["metrics"]}, indent=2))


@dataclass(frozen=True)
class Study:
    """What a study is asked with."""

    name: Positional[str]
    """a name from `nearkin list`"""
    data: str = ""
    """data set; by default the study's own"""
    seeds: int = 0
    """number of seeds; by default the study's own"""
    epochs: int = 0
    """epochs of each run; by default the study's own"""
    options: Options = field(default_factory=dict)
    """key=value ... for what else the study lets one choose"""
    jobs: int = 1
    """runs at a time, each in a process of its own"""
    demo: bool = False
    """a short form of the study, to see what it does"""
    publish: Path | None = None
    """folder of published results: rows that stand there are not run again, and new ones join"""

    def asked(self, module) -> dict:
        """The options that were given, as the study's recipes() takes them."""
        if self.demo and not hasattr(module, "DEMO"):
            raise ValueError(f"study {self.name!r} has no short form: leave out --demo")
        asked = dict(module.DEMO) if self.demo else {}
        given = {"data": self.data, "seeds": self.seeds, "epochs": self.epochs}
        return asked | {k: v for k, v in given.items() if v} | dict(self.options)

    def command(self) -> str:
        """The words that ask for the same again, without the folders of this machine."""
        given = {"data": self.data, "seeds": self.seeds, "epochs": self.epochs}
        words = ["nearkin", "study", self.name]
        words += [str(w) for flag, value in given.items() if value for w in (f"--{flag}", value)]
        words += ["--demo"] if self.demo else []
        words += ["--options"] if self.options else []
        words += [f"{key}={typed(value)}" for key, value in self.options.items()]
        return shlex.join(words)

    def published_name(self) -> str:
        """The study, the data sets and epochs that were asked for, and whether it is its demo."""
        sets = [data.partition(":") for data in self.data.split(",") if data]
        budget = [f"epochs-{self.epochs}"] if self.epochs else []
        budget += ["demo"] if self.demo else []
        return "-".join((self.name, *(Path(path).stem or kind for kind, _, path in sets), *budget))


def study(study: OmitArgPrefixes[Study], where: OmitArgPrefixes[Where] = Where()) -> None:
    """Run what a study asks for and is not stored yet, print its tables, and write its page.

    Example: nearkin study toolkit --data mnist --seeds 5 --out out/toolkit

    Example: nearkin study toolkit --options dims=2 sweep=false --jobs 2
    """
    from nearkin.report.publishing import Page, keep, show, take
    from nearkin.runs.executors import complete, measured
    from nearkin.runs.log import bar

    module = look_up(study.name, STUDIES, "study")
    if study.publish:
        take(study.publish, study.published_name(), where.out)
    asked, kind = study.asked(module), f"option of study {study.name!r}"
    for count, least in (("seeds", 1), ("epochs", 0)):
        if isinstance(asked.get(count), int) and asked[count] < least:
            raise ValueError(f"{count} must be {least} or more, got {asked[count]}")
    name, command = study.published_name(), study.command()

    def note(hashes: Iterable[str]) -> None:
        Page(name, study.name, command, list(hashes)).note(where.out)

    def carry_out(act: Callable[..., list[dict]], work: Collection) -> list[dict]:
        with bar() as shown:
            return act(
                work,
                where.out,
                study=study.name,
                jobs=study.jobs,
                place=where.place(),
                bar=shown,
            )

    if hasattr(module, "measure"):
        found = construct(module.measure, asked, kind)
        note(found)
        rows = carry_out(measured, found)
    else:
        recipes = construct(module.recipes, asked, kind)  # so that a wrong option is said at once
        if hasattr(module, "search"):
            asked["searched"] = carry_out(complete, construct(module.search, {}, kind, **asked))
            recipes = construct(module.recipes, asked, kind)
        trials = asked.get("searched", [])
        note([*(row["hash"] for row in trials), *(recipe.hash for recipe in recipes)])
        rows = trials + carry_out(complete, recipes)
    show(module.answer, rows, where.out, name, command)
    if study.publish:
        keep(module.answer, rows, where.out, study.publish, name, command)


def report(folder: Positional[Path], study: str = "", publish: Path | None = None) -> None:
    """Write the pages of a folder anew, without running anything: of its studies, finished or not,
    and of its single runs.

    Example: nearkin report out/toolkit

    Example: nearkin report out --study attention --publish docs/results

    Args:
        folder: the --out of earlier studies and runs.
        study: the one whose pages are made; by default all, and that of single runs.
        publish: folder of published results, to write the rows and the Markdown pages to.
    """
    from nearkin.report import single_runs
    from nearkin.report.publishing import keep, noted, results, show
    from nearkin.runs.store import Store

    rows = {row["hash"]: row for row in Store(folder).rows()}
    if not rows:
        raise ValueError(f"{folder} holds no rows: wanted the --out folder of a study or a run")
    if study:
        look_up(study, STUDIES, "study")
    pages = [page for page in noted(folder) if study in ("", page.study)]
    single = [row for row in rows.values() if not row["study"] and not study]
    if not pages and not single:
        raise ValueError(f"{folder} holds no page of {f'study {study!r}' if study else 'a study'}")
    for page in pages:
        module = look_up(page.study, STUDIES, "study")
        found = [rows[hash] for hash in page.rows if hash in rows]
        if len(found) < len(page.rows):
            print(f"{page.name}: {len(found)} of {len(page.rows)} runs are done")
        if not results(found):
            continue
        show(module.answer, found, folder, page.name, page.command)
        if publish:
            keep(module.answer, found, folder, publish, page.name, page.command)
    if single:
        show(single_runs.answer, single, folder, "runs", "")
        if publish:
            keep(single_runs.answer, single, folder, publish, "runs", "")


def evaluate_embeddings(
    embeddings: Path,
    gallery: Path | None = None,
    metric: str = "",
    ks: tuple[int, ...] = (1, 2, 4, 8),
    clusters: bool = True,
    intervals: bool = False,
    memory: float = 1e9,
) -> None:
    """Print the metrics of stored embeddings as JSON; the file holds x (N, D) and y (N,), and,
    where some of them are no queries, split (N,) of train, query and gallery.

    Example: nearkin evaluate --embeddings out/runs/HASH/embeddings.npz

    Example: nearkin evaluate --embeddings x.npz --ks 1 10 100 1000 --intervals --no-clusters

    Args:
        embeddings: .npz file of the queries; what `embed` writes has all splits, of which query and
            gallery count here.
        gallery: .npz file of what they are searched in, all of it; by default each other.
        metric: what near means: cosine, inner or euclidean; by default what the file's array
            `metric` says, else cosine.
        ks: the k of recall@k.
        clusters: whether to add NMI and AMI, by k-means.
        intervals: whether to add 95 % intervals, by a bootstrap over the classes.
        memory: bytes that the search may use.
    """
    from nearkin.data.sets.features import parts_of, read_arrays, read_features

    parts = parts_of(embeddings)
    query, searched = parts["query"], parts["gallery"]
    metric = metric or str(read_arrays(embeddings, ["metric"]).get("metric", "cosine"))
    if metric not in METRICS:
        raise unknown(metric, METRICS, f"metric of {embeddings}")
    sides: dict[str, Any] = {
        "query": vectors_of(query, embeddings, metric),
        "query_labels": query.labels,
    }
    if gallery:
        searched = read_features(gallery)
    if len(searched):
        sides["gallery"] = vectors_of(searched, gallery or embeddings, metric)
        sides["gallery_labels"] = in_classes_of(query, searched)
    metrics = measure.evaluate(
        **sides, metric=metric, ks=ks, clusters=clusters, intervals=intervals, memory=memory
    )
    print(json.dumps({"metric": metric, **metrics}, indent=2))


@dataclass(frozen=True)
class Embedding:
    """What is embedded, and by what."""

    data: str
    """data set: a name from `nearkin list`, or folder:PATH"""
    output: Path
    """.npz file to write; features:FILE then reads it"""
    checkpoint: Path | None = None
    """backbone.pt of a run; by default a backbone by name, as it is"""
    backbone: str = ""
    """a name from `nearkin list`, or timm:NAME, by default lite0; its features, without a head
    (those of network and mlp are of random weights)"""
    backbone_options: Options = field(default_factory=dict)
    """key=value ... for the backbone's constructor"""
    size: int = 0
    """side of the pictures in pixels; 0: as the checkpoint had it, else small sets as they are and
    photographs at 128"""


def embed(embedding: OmitArgPrefixes[Embedding], means: OmitArgPrefixes[Means] = Means()) -> None:
    """Write a data set's embeddings by one backbone to a file, for heads and losses to train on.

    Example: nearkin embed --data cub --backbone lite0 --size 224 --output cub.npz

    Example: nearkin embed --data mnist-5k --checkpoint out/runs/HASH/backbone.pt --output x.npz
    """
    from rich.console import Console
    from rich.progress import Progress

    from nearkin.runs.embedding import load_and_embed

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(f"embedding {embedding.data}", total=None)
        for progress in load_and_embed(**vars(embedding), place=means.place()):
            shown.update(task, completed=progress.done, total=progress.total)
    print(f"{embedding.output}: {progress.total:,} embeddings, for features:{embedding.output}")


def data(
    act: Positional[Literal["where", "unpack", "check"]],
    name: Positional[str],
    root: Path | None = None,
) -> None:
    """Say where to get a data set, unpack its archive, or check its files.

    Example: nearkin data where sop

    Example: nearkin data unpack CUB_200_2011.tgz --root DIR

    Example: nearkin data check cub --root DIR

    Args:
        act: where, unpack or check.
        name: a data set from `nearkin list`; of unpack, a zip or tar archive.
        root: folder of the data sets; by default NEARKIN_DATA, else ./data.
    """
    from nearkin.data import check, default_root, unpack, where

    if act == "where":
        print(where(name))
        return
    if act == "unpack":
        unpack(Path(name), root or default_root())
        print(f"{name}: unpacked into {root or default_root()}")
        return
    verdict = check(name, root)
    print(verdict)
    if not verdict.sound:
        raise SystemExit(2)


def vectors_of(split: Split, path: Path, metric: str) -> Tensor:
    """The vectors of a file, all of which have neighbours."""
    measure.check_embeddings(split.tensor, str(path), zero=metric != "cosine")
    return split.tensor


COMMANDS: dict[str, Callable] = {
    "list": list_names,
    "train": train,
    "study": study,
    "report": report,
    "evaluate": evaluate_embeddings,
    "embed": embed,
    "data": data,
}


def main(words: list[str] | None = None) -> None:
    """Carry out one command; bad input is one line and exit code 2."""
    words = list(sys.argv[1:] if words is None else words)
    warnings.formatwarning = one_line
    try:
        words, recipe = split_recipe_file(words)
        act = parse(words, recipe, COMMANDS)
        act()
    except (ValueError, OSError) as error:
        print("nearkin:", " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        if not (isinstance(error, MemoryError) or re.search(TOO_LARGE, str(error))):
            raise
        print(
            "nearkin: out of memory or range:", " ".join(str(error).split())[:200], file=sys.stderr
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("nearkin: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
