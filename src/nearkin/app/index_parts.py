"""`nearkin index --shards`: a new index made in parts, by several processes and machines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearkin.app.export import open_model
from nearkin.app.output import Parts
from nearkin.files import read_json

if TYPE_CHECKING:
    from nearkin.runs.fleet import Fleet


def index_parts(
    model: str, photos: Sequence[Path], output: Path, labels: str, parts: Parts
) -> None:
    """Make an index in parts, and say what is done."""
    from nearkin.leases import Leases
    from nearkin.runs.log import bar
    from nearkin.runs.workers import until_done
    from nearkin.search.parts import MOST, folder_of, join, unpacked
    from nearkin.search.photos import find_some

    shards, fleet = parts.shards, parts.fleet()
    if not 1 <= shards <= MOST:
        raise ValueError(f"wanted 1 to {MOST:,} shards, got {shards}")
    if parts.shard is not None and not 0 <= parts.shard < shards:
        raise ValueError(f"wanted a shard of 0 to {shards - 1}, got {parts.shard}")
    receipt = output.with_name(f"{output.name}.receipt.json")
    if output.exists() and any(output.iterdir()):
        if not receipt.exists():
            raise ValueError(f"{output} exists: give the index a folder of its own")
        print(f"{output} is whole: `nearkin index {output}` brings it up to date")
        return
    leases, output = Leases(), output.absolute()
    sources = [unpacked(source.absolute(), output, leases) for source in photos]
    find_some(sources, labels)
    wanted = range(shards) if parts.shard is None else [parts.shard]
    work = {
        i: partial(pinned, fleet, model, sources, labels, output, i, shards, leases) for i in wanted
    }
    with bar() as shown:
        shown.expect(len(wanted))
        until_done(
            work,
            fleet.executor(output.parent),
            lambda i: leases.taken(folder_of(output, i, shards)),
            lambda part: shown.finish(f"part {part.shard + 1} of {shards}: {part.items:,}"),
            shown.say,
        )
    if join(open_model, model, sources, labels, output, shards, leases) is None:
        print(f"{output}: part {parts.shard} of {shards} is done, others are not")
    else:
        about = read_json(receipt)
        print(f"{output}: {about['items']:,} of {about['photographs']:,} photographs")


def pinned(fleet: Fleet, *words: Any) -> Any:
    """One part, by as many threads as the fleet gives it, as they change the last bits."""
    from nearkin.runs.fleet import Fleet
    from nearkin.runs.machine import cores
    from nearkin.runs.manners import as_found
    from nearkin.search.parts import attempt_part

    here = fleet == Fleet()
    with as_found(0 if here else fleet.threads or max(1, cores() // fleet.jobs)):
        return attempt_part(open_model, *words)
