"""python .ci/lock.py [--current]: write requirements.lock; or tell which versions are behind.

The lock file has, for CPython 3.11 on Linux x86-64, every package of `pip install -e '.[dev]'`
under constraints.txt with the sha256 of its one file, and what the build itself needs. `make test
LOCKED=1` installs exactly these files. pip finds them wherever it is configured to look.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ("hatchling==1.33.0", "editables")
"""What builds the package itself, which pip otherwise fetches without a hash."""


def pip(*words: str) -> str:
    """What pip prints."""
    call = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def lock() -> str:
    """The lock file, as pip resolves it now; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ("install", "--quiet", "--dry-run", "--ignore-installed", "--no-cache-dir")
        pip(*words, "--report", str(report), "-c", "constraints.txt", "-e", ".[dev]", *BUILD)
        found = json.loads(report.read_text())
    lines = []
    for item in found["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name != "nearkin":
            sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={version} --hash=sha256:{sha256}")
    python = found["environment"]["python_version"]
    machine = f"{found['environment']['sys_platform']} {found['environment']['platform_machine']}"
    head = f"# Written by `python .ci/lock.py`, for CPython {python} on {machine}."
    return "\n".join([head, *sorted(lines, key=str.lower)]) + "\n"


def behind() -> list[str]:
    """The pinned packages of which the registries have a newer version."""
    pinned = {line.partition("==")[0].lower() for line in read("constraints.txt")}
    return [
        f"{item['name']} {item['version']}: there is {item['latest_version']}"
        for item in json.loads(pip("list", "--outdated", "--format", "json"))
        if item["name"].lower() in pinned
    ]


def read(name: str) -> list[str]:
    """The lines of a file of requirements, without comments."""
    lines = (line.strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


if __name__ == "__main__":
    if sys.argv[1:] == ["--current"]:
        print("\n".join(behind()) or "every pinned version is the newest")
    else:
        (ROOT / "requirements.lock").write_text(lock())
