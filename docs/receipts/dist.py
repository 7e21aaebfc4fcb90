"""Wheel and sdist, built and installed with each extra alone: python docs/receipts/dist.py DIR.

Each extra has a clean environment, into which the wheel is installed and of other packages exactly
those that it declares, by itself and through the extra, and what these declare in turn. They are
linked from the environment that runs this, whose versions are those of constraints.txt; with
--download pip fetches them in their place. In each, the modules of the extra must be importable,
and any module that is not there must be refused in one line which names its extra.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CORE = "core"
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
PROBE = """
import importlib
import importlib.util
import sys
from nearkin.extras import EXTRAS, optional

here, wanted = set(sys.argv[1].split(",")), set(sys.argv[2].split(",")) - {""}
refused = 0
for module, extra in EXTRAS.items():
    found = importlib.util.find_spec(module) is not None
    assert found or extra not in here, f"{module} of {extra} is missing"
    if not found:
        try:
            with optional():
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            assert str(error) == f"wanted {module}: pip install 'nearkin[{extra}]'", error
            refused += 1
        else:
            raise AssertionError(module)
for module in wanted | {m for m, e in EXTRAS.items() if e in here}:
    importlib.import_module(module)
import nearkin
losses = nearkin.losses.Contrastive()
print(nearkin.__version__, "|", refused, end="")
"""
MODULES = {"docs": "sphinx,myst_parser,sphinx_gallery", "heic": "pi_heif"}
"""Of extras some of whose modules no error names."""


def call(*words: str | Path, **options) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=CLEAN, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))[:200]}\n{done.stderr[-1500:]}")
    return done.stdout


def environment(folder: Path) -> tuple[Path, Path]:
    """A clean environment: its Python, and its folder of packages."""
    shutil.rmtree(folder, ignore_errors=True)
    call(sys.executable, "-m", "venv", folder)
    return folder / "bin" / "python", next((folder / "lib").glob("python*/site-packages"))


def declared(lines: list[str], extra: str) -> set[str]:
    """The distributions that requirements call for, and those that these call for."""
    found: set[str] = set()
    queue = [(Requirement(line), extra) for line in lines]
    seen = set()
    while queue:
        wanted, of = queue.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": of}):
            continue
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        for inner in ("", *wanted.extras):
            if (name, inner) in seen:
                continue
            seen.add((name, inner))
            requires = lines if name == "nearkin" else distribution(name).requires or []
            queue += [(Requirement(line), inner) for line in requires]
        found.add(name)
    return found - {"nearkin"}


def link(names: set[str], packages: Path) -> None:
    """Link the files of these distributions into a folder of packages."""
    for name in sorted(names):
        for path in distribution(name).files or ():
            top = path.parts[0]
            source, target = Path(str(distribution(name).locate_file(top))), packages / top
            if top not in ("..", "__pycache__") and not target.exists() and source.exists():
                target.symlink_to(source)


def main(folder: Path, download: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = sorted({*project["project"]["optional-dependencies"]} - {"dev"})
    builder, _ = environment(folder / "builder")
    call(builder, "-m", "pip", "install", "-q", *project["build-system"]["requires"])
    call(builder, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    requires = []
    rows = []
    for extra in (CORE, *extras):
        python, packages = environment(folder / extra)
        named = f"{wheel}[{extra}]" if extra != CORE else str(wheel)
        if download:
            call(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", named)
        else:
            call(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
            metadata = next(packages.glob("nearkin-*.dist-info")) / "METADATA"
            requires = re.findall(r"^Requires-Dist: (.*)$", metadata.read_text(), re.M)
            link(declared(requires, "" if extra == CORE else extra), packages)
        here = own_and_taken_in(extra, project["project"]["optional-dependencies"])
        found = call(python, "-c", PROBE, ",".join(sorted(here)), MODULES.get(extra, ""))
        rows.append(f"| {extra} | {len(list(packages.glob('*.dist-info')))} | {found} |")
        print(rows[-1], flush=True)
        if extra == CORE:
            words = [python, "-m", "nearkin"]
            done = subprocess.run(words, capture_output=True, text=True, env=CLEAN)
            assert done.returncode == 2, done
            assert done.stderr == "nearkin: wanted tyro: pip install 'nearkin[run]'\n", done.stderr
        shutil.rmtree(folder / extra)
    python, _ = environment(folder / "from-source")
    call(python, "-m", "pip", "install", "-q", "--no-deps", archive)
    version = call(python, "-c", "from importlib.metadata import version as v; print(v('nearkin'))")
    way = "downloaded by pip" if download else "linked, at the versions of constraints.txt"
    text = f"""# Wheel and sdist with each extra alone, {date.today()}

Python {sys.version.split()[0]}. Each environment is clean: the wheel, and of other
packages those that core and extra declare, {way}. All modules of the
extra were imported, and each module that it does not bring was refused in one line which names the
extra. The sdist was built and installed too, as version {version.strip()}. By `make dist`.

| extra | packages | version | modules refused |
|---|---:|---|---:|
{chr(10).join(rows)}
"""
    (ROOT / "docs" / "receipts" / "dist.md").write_text(text)


def own_and_taken_in(extra: str, extras: dict[str, list[str]]) -> set[str]:
    """An extra, and those that it takes in."""
    found, queue = set(), [extra]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            for line in extras.get(name, ()):
                queue += [each.strip() for each in Requirement(line).extras]
    return found


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), "--download" in sys.argv)
    except PackageNotFoundError as error:
        raise SystemExit(f"{error}: run this in the environment of `make`") from None
