"""`nearkin study`: a question, the runs that it takes, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from nearkin.app.output import Output
from nearkin.files import refuse_no_folder
from nearkin.names import Plain


@dataclass(frozen=True)
class Study:
    """A study and the options that it is asked with."""

    name: Positional[str]
    """a name from `nearkin list`"""
    data: str = ""
    """data set; by default the study's own"""
    seeds: int = 0
    """number of seeds; by default the study's own"""
    epochs: int = 0
    """epochs of each run; by default the study's own"""
    options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for what else the study lets one choose"""
    jobs: int = 1
    """runs at a time, each in a process of its own"""
    on: str = "local"
    """where: local, slurm, ray or ray:ADDRESS, whose machines share --out and the data"""
    on_options: Mapping[str, Plain] = field(default_factory=dict)
    """key=value ... for the place: of slurm timeout_min, slurm_partition, gpus_per_node and others
    of submitit; of ray cpus and gpus of a run, which may be fractions, and retries"""
    demo: bool = False
    """a short form of the study, to see what it does"""
    publish: Path | None = None
    """folder of published results: rows that stand there are not run again, and new ones join"""

    def given(self) -> dict[str, Plain]:
        """The options that were given, as the study takes them."""
        flags = {"data": self.data, "seeds": self.seeds, "epochs": self.epochs}
        return {name: value for name, value in flags.items() if value} | dict(self.options)


def study(study: OmitArgPrefixes[Study], output: OmitArgPrefixes[Output] = Output()) -> None:
    """Run what a study asks for and is not stored yet, print its tables, and write its page.

    Example: nearkin study toolkit --data mnist --seeds 5 --out out/toolkit

    Example: nearkin study toolkit --options dims=2 sweep=false --jobs 2

    Example: nearkin study rivals --on slurm --jobs 64 --on-options timeout_min=240 gpus_per_node=1
    """
    from nearkin.report.publishing import keep, show, take
    from nearkin.runs.log import bar
    from nearkin.runs.machine import keep_freed_memory
    from nearkin.studies.ask import ask, page_name

    keep_freed_memory()
    given = study.given()
    place = output.place()
    if study.publish:
        refuse_no_folder(study.publish, "--publish")
        take(study.publish, page_name(study.name, given, study.demo, output.out), output.out)
    with bar() as shown:
        outcome = ask(
            study.name,
            given,
            out=output.out,
            jobs=study.jobs,
            on=study.on,
            on_options=study.on_options,
            place=place,
            bar=shown,
            demo=study.demo,
        )
    show(outcome.answer, outcome.rows, output.out, outcome.note)
    if study.publish:
        keep(outcome, output.out, study.publish)
