"""Loss cards: what each loss of the registry is, what it pulls and pushes, and where it leads.

Made of docstrings, of `nearkin.registry`, of a picture that the loss itself draws, and of the rows
in docs/results: a new loss has its card with no further file.
"""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from inspect import getdoc
from pathlib import Path

import torch
from docstrings import blocks, md_text, to_markdown

from nearkin import losses
from nearkin.losses.protocol import call, rates_of, start_epoch
from nearkin.names import resolve
from nearkin.registry import LOSSES
from nearkin.report.publishing import parts_of
from nearkin.report.tables import column
from nearkin.runs.row import Row
from nearkin.studies.shared.comparison import Comparison, rank_words
from nearkin.studies.shared.reading import headline, mean

RESULTS = Path(__file__).parents[1] / "results"
CUB = "CUB_200_2011_efficientnet_lite0_224px"
COMPARED = ("rivals", "heads", "toolkit", "fine-tuning")
"""Studies whose rows compare losses under one budget."""
CLASSES, EACH = 4, 5
FITTING = {"graph-refinement": {"heads": 1}, "hdc": {"ratios": "1,0.5"}}
"""Options that a loss needs in two dimensions."""
SAMPLERS = {
    "hdml": "classes, P x K",
    "cross-entropy": "any",
    "normalised-cross-entropy": "any",
    "arcface": "any",
    "soft-triple": "any",
    "proxy-anchor": "any",
    "proxy-nca": "any",
    "proxy-gml": "any",
    "group": "classes, P x K",
    "graph-refinement": "any; random batches did best",
    "n-pair": "tuples, or classes",
    "tuple-ratio": "tuples, or classes",
    "tuple-triplet": "tuples, or classes",
    "hierarchical-triplet": "neighbours, or classes",
}
"""Batches in which a loss finds what it compares, where these are not classes (P x K)."""


@dataclass(frozen=True)
class Standing:
    """A loss in one comparison of a study."""

    page: str
    data: str
    setting: str
    metric: str
    score: str
    rank: str
    number: int
    seeds: int
    seconds: float
    first: bool
    options: str


def pages() -> dict[str, str | bytes]:
    """The cards, their pictures, their overview, and the page that helps to choose."""
    found: dict[str, str | bytes] = {}
    for name in LOSSES:
        found[f"losses/{name}.svg"] = picture(name)
        found[f"losses/{name}.md"] = card(name)
    found["losses/index.md"] = overview()
    found["which-loss.md"] = chooser()
    return found


def card(name: str) -> str:
    """The card of one loss."""
    thing = resolve(LOSSES[name])
    doc = getdoc(thing) or ""
    made = example(name)
    options = {
        key: p.default
        for key, p in losses.parameters(name).items()
        if p.default is not p.empty and p.default is not None
    }
    wanted = [key for key, p in losses.parameters(name).items() if p.default is p.empty]
    forms = 'right and as printed: `form="printed"`' if "form" in options else "one form"
    rates = ", ".join(f"{rate:g}" for rate in rates_of(made).values()) or "none of its own"
    parameters = sum(p.numel() for p in made.parameters())
    facts = [
        ("name", f"`{name}`; class `{thing.__name__}`"),
        ("compared by", made.metric),
        ("defaults", ", ".join(f"`{k}={v}`" for k, v in options.items()) or "no options"),
        ("a run hands it", ", ".join(f"`{key}`" for key in wanted) or "nothing"),
        ("batches", SAMPLERS.get(name, "classes, P x K")),
        ("printed and right", forms),
        ("learning rate of its own weights", rates),
        (
            "weights of its own",
            f"{parameters:,} here, with 4 classes in 2-D" if parameters else "none",
        ),
    ]
    lines = [f"# {name}", to_markdown(doc)]
    lines += ["| property | value |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in facts)]
    lines += [
        "## What it pulls and pushes",
        f"![The step that {name} asks of each point](<{name}.svg>)",
        "Twenty points of four classes in the plane, one colour and mark a class. Each arrow is "
        "the direction in which a small step of this loss moves its point; the longer the arrow, "
        "the larger the step, as its square root. A loss that compares by cosine turns points "
        "about the origin, and changes no length.",
        "## In our rows",
        standings_table(name),
        "## Use",
        "```python\nimport nearkin as nk\n\n"
        f"loss = nk.losses.make({name!r}, classes=10, dim=64, features=64)\n```",
        f"```bash\nnearkin train --data mnist-5k --loss {name}\n```",
    ]
    return "\n\n".join(lines) + "\n"


def example(name: str):
    """The loss for four classes in the plane."""
    torch.manual_seed(0)
    return losses.make(name, FITTING.get(name, {}), classes=CLASSES, dim=2, features=2)


def points() -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty points of four classes, which overlap."""
    generator = torch.Generator().manual_seed(3)
    angles = torch.arange(CLASSES) * torch.pi / 2 + 0.4
    centres = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    return centres[labels] + 0.45 * torch.randn(len(labels), 2, generator=generator), labels


def steps_of(name: str) -> torch.Tensor:
    """(N, 2): minus the gradient of the loss at each point."""
    loss, (x, labels) = example(name), points()
    torch.manual_seed(0)
    start_epoch(loss, x, labels)
    head = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(head.weight)
    at = x.clone().requires_grad_()
    call(loss, at, labels, features=at, head=head).backward()
    assert at.grad is not None
    return -at.grad


def picture(name: str) -> bytes:
    """The field of steps as an SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    (x, labels), step = points(), steps_of(name)
    length = step.norm(dim=1, keepdim=True)
    step = step / length.clamp_min(1e-12) * (length / length.max().clamp_min(1e-12)).sqrt()
    plt.rcParams["svg.hashsalt"] = "nearkin"
    figure, axes = plt.subplots(figsize=(4.2, 4.2))
    colours, marks = ("#0072b2", "#d55e00", "#009e73", "#aa4499"), "os^D"
    for kind in range(CLASSES):
        mine = labels == kind
        axes.scatter(*x[mine].T, c=colours[kind], marker=marks[kind], s=42, label=f"class {kind}")
        axes.quiver(
            *x[mine].T,
            *step[mine].T,
            color=colours[kind],
            scale=4,
            width=0.007,
            headwidth=4,
            zorder=3,
        )
    axes.scatter(0, 0, marker="+", c="#444444", s=60)
    axes.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    axes.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3))
    axes.legend(loc="upper right", fontsize=7, frameon=False)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return drawn.getvalue()


@lru_cache
def standings() -> dict[str, tuple[Standing, ...]]:
    """Loss -> where it stands in each comparison of the published rows."""
    found: dict[str, list[Standing]] = defaultdict(list)
    for path in sorted(RESULTS.glob("*.md")):
        if not path.stem.startswith(COMPARED):
            continue
        stored = [row for part in parts_of(RESULTS, path.stem, "") for row in part.rows()]
        rows = [row for row in stored if row.metrics.last and row.recipe.epochs]
        for (data, setting), here in by_place(rows).items():
            metric = headline(here)
            groups: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
            for row in here:
                options = " ".join(f"{k}={v}" for k, v in sorted(row.recipe.loss_options.items()))
                groups[row.recipe.loss, options][row.recipe.seed] = row
            scores = {
                key: {seed: metric.of(row) or 0.0 for seed, row in of.items()}
                for key, of in groups.items()
                if len(of) > 1
            }
            if len(scores) < 3 or len({loss for loss, _ in scores}) < 3:
                continue  # a sweep of one loss is no comparison
            one = Comparison(metric.name, {f"{a} {b}": v for (a, b), v in scores.items()})
            ranks = one.ranks()
            for (loss, options), values in scores.items():
                estimate, rank = mean(values), ranks[f"{loss} {options}"]
                assert estimate is not None
                seconds = [r.cost.train_seconds or 0.0 for r in groups[loss, options].values()]
                found[loss].append(
                    Standing(
                        path.stem,
                        data,
                        setting,
                        metric.name,
                        str(column([estimate], percent=True)[0]),
                        rank_words(rank),
                        len(scores),
                        len(values),
                        sum(seconds) / len(seconds),
                        rank[0] == 1,
                        options,
                    )
                )
    return {loss: tuple(of) for loss, of in found.items()}


def by_place(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of one comparison: of one data set, and of one dimension and start."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        started = row.recipe.head_start != "orthogonal"
        setting = f"{row.recipe.dim}-D" + (", started from a closed form" if started else "")
        found[row.data.spoken, setting].append(row)
    return found


def standings_table(name: str) -> str:
    """Where the loss stands, as a table."""
    mine = standings().get(name, ())
    if not mine:
        return "No published study has compared it yet."
    lines = [
        "Means over seeds with 95 % intervals, last epoch, on test. The rank is the best and the "
        "worst that paired tests leave it; from 1 on it cannot be told from the leader. Seconds "
        "are those of training one run.",
        "",
        "| data | options | metric | % | rank | seconds | page |\n|---|---|---|---:|---|---:|---|",
    ]
    for s in mine:
        rank = f"**{s.rank}**" if s.first else s.rank
        shown = f"`{s.options}`" if s.options else ""
        lines.append(
            f"| {s.data}, {s.setting} | {shown} | {s.metric} | {s.score} | {rank} of {s.number} "
            f"| {s.seconds:.0f} | [rows](../results/{s.page}.md) |"
        )
    return "\n".join(lines)


def first_line(name: str) -> str:
    """What a loss is, in its docstring's first sentence."""
    block = next(blocks(getdoc(resolve(LOSSES[name])) or ""))
    return " ".join(" ".join(block.lines).split()).split(". ")[0].rstrip(".") + "."


def overview() -> str:
    """All losses at a glance."""
    lines = [
        "# Losses",
        "Each loss is called as `loss(embeddings, labels)`, and fits into any training loop. A "
        "card holds its formula, a picture of what it pulls and pushes, its defaults, and how it "
        "did in our published runs. The last column says in how many of our comparisons paired "
        "tests leave it among those that may be the best. "
        "[Which loss for my data?](../which-loss.md) shows them side by side.",
        "| loss | what it is | compared by | may be best |\n|---|---|---|---|",
    ]
    table = []
    for name in LOSSES:
        mine = standings().get(name, ())
        led = sum(s.first for s in mine)
        share = f"in {led} of {len(mine)}" if mine else "not compared"
        words, metric = md_text(first_line(name)), example(name).metric
        table.append(f"| [{name}]({name}.md) | {words} | {metric} | {share} |")
    lines[-1] += "\n" + "\n".join(table)
    lines.append("```{toctree}\n:hidden:\n\n" + "\n".join(LOSSES) + "\n```")
    return "\n\n".join(lines) + "\n"


def chooser() -> str:
    """Which loss for which data, from the rows."""
    lines = [
        "# Which loss for my data?",
        "In short: **ask your own data**. `nearkin choose --data photos/` compares no training, "
        "closed forms and losses on them in minutes, and says how sure the answer is; "
        "`nearkin train --data photos/ --like best` then takes it.",
        "```{list-table}\n:header-rows: 1\n\n"
        "* - what you have\n  - begin with\n  - why\n"
        "* - photographs and a pretrained network, minutes\n  - whitening within classes, "
        "`--head-start whitened --epochs 0`\n  - a second of work, and at 64 dimensions no "
        f"loss was surely better ([rows](results/closed-forms-{CUB}.md))\n"
        "* - the same, and an hour\n  - a linear head that starts whitened, with "
        "`normalised-cross-entropy`, `proxy-anchor` or `multi-similarity`\n  - from one good start "
        "they cannot be told apart "
        f"([rows](results/heads-{CUB}.md))\n"
        "* - small pictures, a network from scratch, a few classes\n  - `fisher-nca`, "
        "`contrastive` or `ratio-triplet`\n  - all near 99.5 % in 64-D on MNIST; they differ in "
        "how far apart classes stand ([rows](results/toolkit-mnist.md))\n"
        "* - many classes with few images each\n  - a pair loss with `--sampler classes`, or "
        "`proxy-gml`\n  - see the tables below\n```",
        "The tables are made from the published rows: means over seeds, in %, with 95 % intervals. "
        "**Bold** are those that paired tests cannot tell from the best of their column; all "
        "others are surely behind. *Stored features* are those of EfficientNet-Lite0 at 224 px, of "
        "which a linear head alone is trained.",
    ]
    by: dict[str, list[tuple[str, Standing]]] = defaultdict(list)
    for loss, mine in standings().items():
        for s in mine:
            by[s.data].append((loss, s))
    for data, entries in sorted(by.items()):
        lines += [f"## {data}", comparisons(entries)]
    return "\n\n".join(lines) + "\n"


def comparisons(entries: list[tuple[str, Standing]]) -> str:
    """A table of one data set: a line a loss, a column a comparison with the page of its rows."""
    columns: dict[tuple[str, str], Standing] = {}
    table: dict[str, dict[tuple[str, str], Standing]] = defaultdict(dict)
    for loss, s in entries:
        name = f"[{loss}](losses/{loss}.md)" + (f" `{s.options}`" if s.options else "")
        columns[s.setting, s.page] = s
        table[name][s.setting, s.page] = s
    keys = sorted(columns, key=lambda key: (int(key[0].partition("-")[0]), key))
    settings = [setting for setting, _ in keys]
    heads = []
    for setting, page in keys:
        study = f" ({page.partition('-')[0]})" if settings.count(setting) > 1 else ""
        one = columns[setting, page]
        heads.append(f"[{setting}{study}](results/{page}.md): {one.metric}, {one.seeds} seeds")

    def cell(s: Standing | None) -> str:
        return "" if s is None else f"**{s.score}**" if s.first else s.score

    def standing(line: tuple[str, dict[tuple[str, str], Standing]]) -> tuple[int, float]:
        scores = [float(s.score.split()[0]) for s in line[1].values()]
        return sum(s.first for s in line[1].values()), sum(scores) / len(scores)

    ordered = sorted(table.items(), key=standing, reverse=True)
    return "\n".join(
        [
            f"| loss | {' | '.join(heads)} |",
            f"|---|{'---:|' * len(heads)}",
            *(f"| {name} | {' | '.join(cell(of.get(k)) for k in keys)} |" for name, of in ordered),
        ]
    )
