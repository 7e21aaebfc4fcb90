"""python docs/scale.py [MEASURED.json]: docs/scale.md, what large studies would cost, on paper.

Every figure of the page is computed here, from constants of three kinds: those of our own store,
which `python -m benchmarks.fleet operations` measures (a file of its output may be given), those of
machines, which are assumptions and stand at the head of the page, and the sizes that are asked for.
`simulated` draws a study of many runs on many workers event by event; the rest is arithmetic.
"""

# ruff: noqa: E501 - the long lines are those of the page
from __future__ import annotations

import heapq
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("scale.md")
MEASURED = {
    "a_run_in_all": 249.0,
    "a_stored_run_in_all": 15.6,
    "bytes_of_a_row": 3302,
    "files_of_a_run": 9.0,
    "bytes_of_a_run": 18353,
    "beats_a_second": 0.1,
    "seconds_of_a_header": 2.7e-5,
}
"""`operations 6` of 2026-11-30: a run of 96 vectors, as the store treats every run alike."""


@dataclass(frozen=True)
class Machines:
    """What is assumed of the machines.

    metadata: calls a second that the shared disk answers; an NFS server has about 5,000 to 20,000,
        a parallel file system (Lustre, one metadata server) 20,000 to 100,000.
    network: bytes a second of one node, 200 Gbit/s at four fifths.
    gpu_memory: bytes of one GPU.
    embed: images a second of one GPU, a ResNet-50 at 224 px in half precision.
    decode: images a second of one CPU core, JPEG of 500 px.
    disk: bytes a second that all nodes together read from the shared disk.
    """

    metadata: float = 10_000
    network: float = 20e9
    gpu_memory: float = 80e9
    embed: float = 2_500
    decode: float = 200
    disk: float = 20e9


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated study.

    hours: from the first run to the last row. busy: the share of that in which workers worked.
    calls: metadata calls a second in the busiest minute, and in the mean.
    lost: runs begun again, as their machine was lost.
    """

    hours: float
    busy: float
    busiest: float
    mean: float
    lost: int


def simulated(
    runs: int, workers: int, minutes: float, calls: dict, loss_a_day: float = 0.01, seed: int = 0
) -> Outcome:
    """A study, event by event: workers take runs of about so many minutes from one list.

    Each machine is lost with this probability a day; its run goes on elsewhere from its last
    checkpoint, half a minute old, once its lease is stale (60 s).
    """
    draw = random.Random(seed)
    left, lost, per_minute = runs, 0, {}
    free = [(0.0, worker) for worker in range(workers)]
    heapq.heapify(free)
    worked = end = 0.0
    rest: list[float] = []  # minutes that runs of lost machines still take

    def count(minute: float, many: float) -> None:
        per_minute[int(minute)] = per_minute.get(int(minute), 0.0) + many

    while left or rest:
        now, worker = heapq.heappop(free)
        if rest:
            length = rest.pop()
        else:
            length, left = minutes * draw.lognormvariate(0, 0.3), left - 1
        count(now, calls["a_run_in_all"] / 2)
        if draw.random() < loss_a_day * length / 1440:
            done = draw.uniform(0, length)
            rest.append(length - max(0.0, done - 0.5) + 1.0)
            lost += 1
            length = done
        beats = 60 * calls["beats_a_second"] * 3  # a list, a write, a rename each
        for minute in range(int(now), int(now + length) + 1):
            count(minute, beats)
        count(now + length, calls["a_run_in_all"] / 2)
        worked, end = worked + length, max(end, now + length)
        heapq.heappush(free, (now + length, worker))
    work_minutes = [v for k, v in per_minute.items() if k < int(end)] or [0.0]
    return Outcome(
        hours=end / 60,
        busy=worked / (workers * end),
        busiest=max(work_minutes) / 60,
        mean=sum(work_minutes) / len(work_minutes) / 60,
        lost=lost,
    )


def gathered(batch: int, dim: int, world: int, network: float) -> dict[str, float]:
    """The cost of one gather of a batch's embeddings, float32, by a ring over `world` GPUs of which
    8 share a node's network, and of its gradient, which is reduced the same way."""
    size = 4 * batch * dim
    moved = size * (world - 1) / world
    seconds = moved / (network / 8)
    return {
        "megabytes": size / 1e6,
        "milliseconds": 1e3 * seconds,
        "both": 2e3 * seconds,
        "matrix_gigabytes": 4 * batch**2 / 1e9,
        "rows_gigabytes": 4 * batch**2 / world / 1e9,
        "teraflops": 3 * 2 * batch**2 * dim / 1e12,
    }


def proxies(classes: int, dim: int, batch: int, world: int, share: float) -> dict[str, float]:
    """Memory in GB of a classifier of so many classes with Adam, whole and in shards, and of the
    logits of a batch, all and of the sampled share of classes (Partial FC)."""
    weights = 4 * classes * dim
    return {
        "whole": 4 * weights / 1e9,  # weights, gradient and two moments
        "shard": 4 * weights / world / 1e9,
        "logits": 4 * batch * classes / 1e9,
        "logits_shard": 4 * batch * classes / world / 1e9,
        "logits_sampled": 4 * batch * classes * share / world / 1e9,
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def page(measured: dict, at: Machines) -> str:
    """The page."""
    studies = {
        (workers, minutes): simulated(10_000, workers, minutes, measured)
        for workers, minutes in ((500, 30.0), (500, 5.0), (500, 0.5), (4_000, 0.5))
    }
    main = studies[500, 30.0]
    collect = 500 * 10_000 * measured["a_stored_run_in_all"]
    rows = [
        [
            f"{workers:,}",
            f"{minutes:g} min",
            f"{one.hours:.1f} h" if one.hours > 1 else f"{60 * one.hours:.0f} min",
            f"{100 * one.busy:.0f} %",
            f"{one.mean:,.0f}",
            f"{one.busiest:,.0f}",
            f"{100 * one.busiest / at.metadata:.1f} %",
            str(one.lost),
        ]
        for (workers, minutes), one in studies.items()
    ]
    heads = ["workers", "a run", "in all", "at work", "calls/s, mean", "busiest minute"]
    study = table([*heads, "of the disk", "machines lost"], rows)

    images, nodes, gpus, cores, dim = 10**9, 64, 8, 96, 512
    of_gpu = images / (nodes * gpus * at.embed) / 3600
    of_cpu = images / (nodes * cores * at.decode) / 3600
    of_disk = images * 110e3 / at.disk / 3600
    vectors = 4 * images * dim
    headers, tars = images / 1e4 * 2 * 1e4, images / 1e4
    scan = headers * measured["seconds_of_a_header"] / 3600
    slowest = max((of_gpu, "the GPUs"), (of_cpu, "decoding"), (of_disk, "reading"))[1]
    embedding = table(
        ["what", "how much", "time or size on 64 nodes of 8 GPUs and 96 cores"],
        [
            ["forward passes", f"{at.embed:,.0f} images/s a GPU", f"{of_gpu:.2f} h"],
            ["decoding", f"{at.decode:,.0f} images/s a core", f"{of_cpu:.2f} h"],
            ["reading 110 kB an image", f"{at.disk / 1e9:.0f} GB/s in all", f"{of_disk:.2f} h"],
            ["listing members of tars", f"{headers:,.0f} headers, by every part", f"{scan:.1f} h"],
            ["vectors", f"{dim} float32", f"{vectors / 1e12:.2f} TB"],
            ["one part of 6,400", f"{images // 6400:,} images", f"{vectors / 6400 / 1e9:.2f} GB"],
        ],
    )
    gather = gathered(65_536, 512, 512, at.network)
    small = gathered(4_096, 512, 16, at.network)
    gathers = table(
        [
            "batch x dimension, GPUs",
            "gathered",
            "one way",
            "with the gradient",
            "its matrix",
            "flop",
        ],
        [
            [
                name,
                f"{g['megabytes']:.0f} MB",
                f"{g['milliseconds']:.1f} ms",
                f"{g['both']:.1f} ms",
                f"{g['matrix_gigabytes']:.2f} GB ({g['rows_gigabytes']:.3f} a GPU by rows)",
                f"{g['teraflops']:.2f} T",
            ]
            for name, g in (("65,536 x 512, 512", gather), ("4,096 x 512, 16", small))
        ],
    )
    fc = proxies(10**7, 512, 65_536, 512, 0.1)
    one_gpu = proxies(10**6, 512, 4_096, 1, 0.1)
    memory = at.gpu_memory / 1e9
    classes = table(
        ["classes, batch, GPUs", "weights and Adam", "a GPU", "logits", "a GPU", "a tenth sampled"],
        [
            [
                name,
                f"{p['whole']:.1f} GB",
                f"{p['shard']:.2f} GB",
                f"{p['logits']:,.1f} GB",
                f"{p['logits_shard']:.2f} GB",
                f"{p['logits_sampled']:.2f} GB",
            ]
            for name, p in (("1e7, 65,536, 512", fc), ("1e6, 4,096, 1", one_gpu))
        ],
    )
    break_at = at.metadata * 60 / (measured["a_run_in_all"] / 0.5)
    return f"""# What scale would cost, on paper

`python docs/scale.py` writes this page from `python -m benchmarks.fleet operations` and from the
assumptions below; nothing on it was run at this size. What was run is in
[machines.md](machines.md).

**Measured, of our store** (calls of the file system below `--out`, by strace): one run makes
{measured["a_run_in_all"]:.0f}, its lease, row and merge, checkpoint, log and Model among them; looking at a
run that is stored already {measured["a_stored_run_in_all"]:.0f}; a row has {measured["bytes_of_a_row"]:,} bytes, a run leaves
{measured["files_of_a_run"]:.0f} files. A holder writes a sign of life every {1 / measured["beats_a_second"]:.0f} s.

**Assumed, of machines**: {at.metadata:,.0f} calls a second by the shared disk, {at.network / 1e9:.0f} GB/s of network a node
of 8 GPUs with {memory:.0f} GB each, {at.embed:,.0f} images/s a GPU, {at.decode:,.0f} decoded images/s a core,
{at.disk / 1e9:.0f} GB/s read from the shared disk by all together. Change them in `Machines`.

## A study of 10,000 runs

Simulated event by event: lengths of runs are spread (log-normal, 0.3), a machine is lost with 1 % a
day, and its run goes on elsewhere from its checkpoint when its lease is a minute old.

{study}

- On 500 GPUs with runs of half an hour the disk is asked {main.busiest:,.0f} times a second in the busiest
  minute, in which all begin, {100 * main.busiest / at.metadata:.1f} % of what it answers: runs of this length do not
  notice it.
- **Where it breaks: the end.** Each worker that was started with the same command reads every row
  for its own page: 500 x 10,000 looks are {collect / 1e6:.0f} million calls, {collect / at.metadata / 3600:.1f} h of this disk. Let one
  process ask (`--on slurm` or `--on ray`, whose jobs read what they do alone), or start workers in
  plain copies on tens of machines, not hundreds.
- **Where it breaks: short runs.** Runs of half a minute reach the disk's limit at about
  {break_at:,.0f} workers; the file of rows itself is written in groups, by whoever holds its lease, and
  10,000 rows are {10_000 * measured["bytes_of_a_row"] / 1e6:.0f} MB.
- 10,000 runs leave {10_000 * measured["files_of_a_run"]:,.0f} files below `runs/`: a folder of 10,000 folders lists slowly on
  NFS, which happens once a page.

## 1e9 embeddings on 64 nodes

{embedding}

- GPUs, decoders and the disk are within an order of magnitude of each other; here {slowest} takes
  longest, and pictures of another size would change the order.
- **Where it breaks: the list of members.** Every part reads the headers of all {tars:,.0f} archives of
  10,000 images, as classes and batches are those of the whole: {scan:.1f} h each at {1e6 * measured["seconds_of_a_header"]:.0f} µs a header. Parts
  of one folder of archives each (`--data tars:FOLDER_i`, 64 data sets) have 1/64 of that.
- **Where it breaks: one file.** Joining holds all vectors in memory, {vectors / 1e12:.2f} TB: beyond some
  100 million embeddings leave the parts apart. A part is an .npz file of its own, and the exact
  search takes blocks.
- A billion pictures as single files would be {images * 3 / at.metadata / 3600:.0f} h of metadata alone (stat, open, close at
  {at.metadata:,.0f} a second): archives are not optional.

## One batch of 65,536 on 512 GPUs

The embeddings of all ranks are gathered in float32, and their gradients go back the same way.

{gathers}

- The gather itself is small: a tenth of a second at most. **What breaks is the matrix of
  similarities**, {gather["matrix_gigabytes"]:.0f} GB on every rank, as each computes the whole loss: it does not fit beside a
  backbone in {memory:.0f} GB once its gradient and a softmax are there (three times as much). Up to about
  {int((at.gpu_memory / 4 / 12) ** 0.5 / 1024) * 1024:,} in a batch it takes a quarter of the GPU; beyond, rows of the matrix would have to be
  shared among ranks, which holds for losses that are means over anchors and is not done here.

## 1e7 classes

{classes}

- Proxies are replicated on every rank here. With 1e6 classes they take {one_gpu["whole"]:.1f} GB; **with 1e7 they
  take {fc["whole"]:.0f} GB, more than a GPU has**, and would have to be shared among ranks (Partial FC: each
  rank holds 1/512 of the classes, {fc["shard"]:.2f} GB, and computes its own columns of the logits). Sampling a
  tenth of the classes brings the logits from {fc["logits_shard"]:.1f} to {fc["logits_sampled"]:.2f} GB a GPU. Neither is done here.
- The softmax over shared classes wants two numbers an anchor from each rank (largest logit, sum):
  65,536 x 2 x 4 bytes, {65_536 * 8 / 1e6:.1f} MB, which no network notices.
"""


def main() -> None:
    """Write the page."""
    measured = dict(MEASURED)
    if len(sys.argv) > 1:
        found = json.loads(Path(sys.argv[1]).read_text())["operations"]
        measured |= {name: found[name] for name in measured}
    PAGE.write_text(page(measured, Machines()))


if __name__ == "__main__":
    main()
