"""Wheel and sdist, built and installed with each extra alone: python docs/receipts/dist.py DIR.

The core goes into a clean environment. For each extra another one is made, which sees the core's
packages, so that torch is installed once. In each, the modules of the extra must be importable, and
any module of another extra that is missing must be refused in one line that names its extra.
"""

import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import importlib.util
import sys
from nearkin.extras import EXTRAS, MissingExtra, optional

here, wanted = set(sys.argv[1].split(",")), set(sys.argv[2].split(",")) - {""}
for module, extra in EXTRAS.items():
    found = importlib.util.find_spec(module) is not None
    assert found or extra not in here, f"{module} of {extra} is missing"
    if not found:
        try:
            with optional():
                importlib.import_module(module)
        except MissingExtra as error:
            assert str(error) == f"wanted {module}: pip install 'nearkin[{extra}]'", error
        else:
            raise AssertionError(module)
for module in wanted:
    importlib.import_module(module)
import nearkin
print(nearkin.__version__, end="")
"""
MODULES = {"docs": "sphinx,myst_parser", "heic": "pi_heif", "dev": "pytest,hypothesis"}
"""Of extras whose modules no error names."""


def call(*words: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True, **options)


def python_of(folder: Path) -> Path:
    if not (folder / "bin").is_dir():
        call(sys.executable, "-m", "venv", folder)
    return folder / "bin" / "python"


def closure(extra: str, extras: dict[str, list[str]]) -> set[str]:
    """An extra, and those that it takes in."""
    found, queue = set(), [extra]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            for line in extras[name]:
                if line.startswith("nearkin["):
                    queue += line.partition("[")[2].rstrip("]").split(",")
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    builder = python_of(folder / "builder")
    call(builder, "-m", "pip", "install", "-q", *project["build-system"]["requires"])
    call(builder, "-m", "hatchling", "build", "-d", folder.resolve(), cwd=ROOT)
    wheel = max(folder.glob("*.whl"), key=lambda p: p.stat().st_mtime).resolve()
    archive = max(folder.glob("*.tar.gz"), key=lambda p: p.stat().st_mtime).resolve()
    constraints = ("-c", ROOT / "constraints.txt")
    core = python_of(folder / "core")
    call(core, "-m", "pip", "install", "-q", *constraints, wheel)
    lines = [f"| (core) | {call(core, '-c', PROBE, 'none', '').stdout} |"]
    done = subprocess.run([core, "-m", "nearkin", "list"], capture_output=True, text=True)
    assert done.returncode == 2, done
    assert done.stderr == "nearkin: wanted tyro: pip install 'nearkin[run]'\n", done.stderr
    packages = next((folder / "core" / "lib").glob("python*/site-packages")).resolve()
    for extra in sorted(extras):
        if extra == "dev":
            continue
        python = python_of(folder / extra)
        own = next((folder / extra / "lib").glob("python*/site-packages"))
        (own / "core.pth").write_text(f"{packages}\n")
        words = [python, "-m", "pip", "install", "-q", *constraints, f"{wheel}[{extra}]"]
        call(*words)
        here = ",".join(sorted(closure(extra, extras)))
        found = call(python, "-c", PROBE, here, MODULES.get(extra, ""))
        lines.append(f"| {extra} | {found.stdout} |")
        print(lines[-1], flush=True)
    from_source = python_of(folder / "from-source")
    call(from_source, "-m", "pip", "install", "-q", "--no-deps", archive)
    call(from_source, "-c", "from importlib.metadata import version; version('nearkin')")
    text = f"""# Wheel and sdist with each extra alone, {date.today()}

Python {sys.version.split()[0]}. Each extra was installed over the core, its modules imported, and
each module that it does not bring refused in one line which names the extra. By `make dist`.

| extra | version that imports |
|---|---|
{chr(10).join(lines)}
"""
    (ROOT / "docs" / "receipts" / "dist.md").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
