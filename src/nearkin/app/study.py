"""`nearkin study`: a question, the runs that it takes, and what came of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from nearkin.app.output import Output
from nearkin.names import Plain, construct, look_up, typed
from nearkin.registry import STUDIES


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


def study(study: OmitArgPrefixes[Study], output: OmitArgPrefixes[Output] = Output()) -> None:
    """Run what a study asks for and is not stored yet, print its tables, and write its page.

    Example: nearkin study toolkit --data mnist --seeds 5 --out out/toolkit

    Example: nearkin study toolkit --options dims=2 sweep=false --jobs 2
    """
    from nearkin.report.publishing import Page, keep, show, take
    from nearkin.runs.executors import complete, measured
    from nearkin.runs.log import bar
    from nearkin.runs.machine import keep_freed_memory

    keep_freed_memory()
    module = look_up(study.name, STUDIES, "study")
    if study.publish and study.publish.exists() and not study.publish.is_dir():
        raise ValueError(f"--publish {study.publish}: wanted a folder, it is a file")
    if study.publish:
        take(study.publish, study.published_name(), output.out)
    asked, kind = study.asked(module), f"option of study {study.name!r}"
    for count, least, most in (("seeds", 1, 1000), ("epochs", 0, 10**6)):
        if isinstance(asked.get(count), int) and not least <= asked[count] <= most:
            raise ValueError(f"{count} must be {least} to {most}, got {asked[count]}")
    name, command = study.published_name(), study.command()

    def note(hashes: Iterable[str]) -> None:
        Page(name, study.name, command, list(hashes)).note(output.out)

    def carry_out(act: Callable[..., list], work: Collection) -> list:
        with bar() as shown:
            return act(
                work,
                output.out,
                study=study.name,
                jobs=study.jobs,
                place=output.place(),
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
        note([*(row.hash for row in trials), *(recipe.hash for recipe in recipes)])
        rows = trials + carry_out(complete, recipes)
    show(module.answer, rows, output.out, name, command)
    if study.publish:
        keep(module.answer, rows, output.out, study.publish, name, command)
