"""A newcomer's way, from `git clone` to a search result, timed: python docs/receipts/newcomer.py.

What README says is typed in a fresh clone, with its own virtual environment. The photographs are
drawn here, eight classes of twelve. The receipt is docs/receipts/newcomer.md.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DRAW = """
from pathlib import Path
import numpy as np
from PIL import Image
random = np.random.default_rng(0)
for kind in range(8):
    for i in range(13):
        path = Path("photos") / f"class-{kind}" / f"{i}.jpg" if i else Path(f"new-{kind}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        base = random.integers(0, 60, (96, 128, 3)) + np.array([25 * kind, 190 - 20 * kind, 40])
        base[20 : 30 + 5 * kind, 20:90] = (9 * kind, 30, 220 - 25 * kind)
        Image.fromarray(base.clip(0, 255).astype(np.uint8)).save(path)
"""
INSTALL = "pip install --quiet --no-compile -c constraints.txt '.[all]'"
STEPS = (
    ("git clone", "git clone --quiet {origin} nearkin"),
    ("an environment", "{python} -m venv env"),
    ("install", f"cd nearkin && ../env/bin/{INSTALL}"),
    ("(photographs are drawn)", "env/bin/python draw.py"),
    ("nearkin data check", "env/bin/nearkin data check photos/"),
    ("nearkin index", "env/bin/nearkin index lite0 photos/ --output shop"),
    ("nearkin search", "env/bin/nearkin search shop new-3.jpg -k 5"),
    ("nearkin explore", "env/bin/nearkin explore shop"),
)
SEARCH = "nearkin search"


def main() -> None:
    folder, before = Path(tempfile.mkdtemp()), os.getloadavg()[0]
    lines, spent, result, until = [], 0.0, "", 0.0
    try:
        (folder / "draw.py").write_text(DRAW)
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        for name, command in STEPS:
            words = command.format(origin=ROOT, python=sys.executable)
            began, used = time.monotonic(), cpu_seconds()
            done = subprocess.run(
                words, shell=True, cwd=folder, env=clean, capture_output=True, text=True
            )
            seconds, used = time.monotonic() - began, cpu_seconds() - used
            if done.returncode:
                raise SystemExit(f"{name} failed: {done.stderr[-600:]}")
            spent += seconds
            lines.append(f"| {name} | {seconds:.1f} | {used:.1f} |")
            print(f"{name}: {seconds:.1f} s, of a processor {used:.1f} s", flush=True)
            if name == SEARCH:
                result, until = done.stdout.strip().replace(f"{folder}/", ""), spent
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    after = os.getloadavg()[0]
    text = f"""# A newcomer's way, {date.today()}

From `git clone` to the first search result: **{until / 60:.1f} minutes**.
Python {platform.python_version()}, {os.cpu_count()} cores of {machine()},
a load of {before:.1f} at the beginning and {after:.1f} at the end.
`make newcomer` wrote this.

| step | seconds | of a processor |
|---|---:|---:|
{chr(10).join(lines)}

What the search printed:

```text
{result}
```
"""
    (ROOT / "docs" / "receipts" / "newcomer.md").write_text(text)


def cpu_seconds() -> float:
    """Processor time of all steps so far: what a busy machine does not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [n for n in info.read_text().splitlines() if n.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
