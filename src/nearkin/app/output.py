"""The flags that commands share: where results go, and the machine that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes

from nearkin.names import Plain

if TYPE_CHECKING:
    from nearkin.runs.engine import Place
    from nearkin.runs.fleet import Fleet


Labels = Literal["", "nested", "parent", "top"]
"""Which folders on the way to a picture name its class; "": the first, where there is no doubt."""


@dataclass(frozen=True)
class Machine:
    """Where the data are, and what the work is done on."""

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
    private: bool = False
    """copy no picture of one's own folder into results and pages"""

    def place(self) -> Place:
        """The machine as the engine takes it."""
        from nearkin.runs.engine import Place

        root = str(self.root) if self.root else None
        place = Place(root, self.device, self.download, self.skip_bad, self.threads)
        return replace(place, private=self.private)


@dataclass(frozen=True)
class MadeBy:
    """What made the vectors of features:FILE, where the file does not tell: the Model that a run
    leaves then takes photographs."""

    made_by: str = ""
    """backbone that made the stored features: lite0, lite2, timm:NAME or a Model's folder; checked
    on the pictures that the items are named after, where these lie below --root"""
    made_size: int = 0
    """side in pixels at which it made them; 0: its own"""


@dataclass(frozen=True)
class Parts:
    """Work in parts, which several processes and machines may share."""

    shards: int = 0
    """in how many parts; 0: as one"""
    shard: int | None = None
    """the one part to do, from 0; by default all that nobody else does. The last one joins them"""
    jobs: int = 1
    """parts at a time, each in a process of its own"""
    on: str = "local"
    """where: local, slurm, ray or ray:ADDRESS, whose machines share the output's folder"""
    on_options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for the place, as `nearkin study` takes them"""

    def refuse_without_shards(self) -> None:
        """What goes with --shards alone."""
        for flag, given in (("shard", self.shard is not None), ("on", self.on != "local")):
            if given:
                raise ValueError(f"--{flag} goes with --shards")
        if self.jobs != 1 or self.on_options:
            raise ValueError("--jobs and --on-options go with --shards")

    def fleet(self) -> Fleet:
        """Where the parts are done."""
        from nearkin.runs.fleet import Fleet

        return Fleet(self.on, self.jobs, self.on_options)


@dataclass(frozen=True)
class Output:
    """Where results go, and the machine that makes them."""

    out: Path = Path("out")
    """folder of the results"""
    machine: OmitArgPrefixes[Machine] = Machine()

    def place(self) -> Place:
        """The machine as the engine takes it."""
        return self.machine.place()
