"""The page of many points: how large it is, and how smoothly it follows the mouse.

The mouse is led over 20,000 points in a headless Chromium that draws by the processor alone, for
ten seconds, through the DevTools protocol, and the page's own frames are counted. On a busy machine
frames are lost; the processor time of a frame, that of all processes of the browser, tells what it
would be on a quiet one.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.timing import Row
from nearkin.search.explore import Points, explore

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BY_PROCESSOR = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
BY_PROCESSOR += ["--enable-unsafe-swiftshader", "--disable-background-networking"]
FRAMES = """() => {
    const ring = document.getElementById("ring");
    const seen = { frames: 0, shown: 0 };
    let before = "";
    const look = () => {
        seen.frames += 1;
        if (ring.style.transform !== before) seen.shown += 1;
        before = ring.style.transform;
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
    window.seen = seen;
}"""


def rows(folder: Path, quick: bool) -> Iterator[Row]:
    """The size of the page of 100,000 points; hover over 20,000, where there is a browser."""
    yield size_row(folder, 2_000 if quick else 100_000)
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        count = 2_000 if quick else 20_000
        yield hover_row(page_of(folder, count), found, count, 2.0 if quick else 10.0)


def page_of(folder: Path, count: int) -> Path:
    """The page of so many points in 200 clouds, without thumbnails."""
    random = np.random.default_rng(0)
    labels = [f"kind {i % 200:03d}" for i in range(count)]
    centres = random.normal(size=(200, 64))
    x = (centres[np.arange(count) % 200] + random.normal(size=(count, 64))).astype(np.float32)
    names = [f"/photos/{i % 200:03d}/photograph {i}.jpg" for i in range(count)]
    return explore(Points("shop", names, labels, x, "cosine"), folder / f"{count}.html")


def size_row(folder: Path, count: int) -> Row:
    begun = time.perf_counter()
    size = page_of(folder, count).stat().st_size
    return Row(
        f"the page of {count:,} points",
        time.perf_counter() - begun,
        note=f"{size / 1e6:.1f} MB, wanted less than 12",
    )


def hover_row(page: Path, browser: str, count: int, seconds: float) -> Row:
    """Time from one frame to the next while the mouse moves; wanted are 30 frames a second."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=BY_PROCESSOR)
        tab = chromium.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(page.as_uri(), timeout=300_000)
        tab.wait_for_selector("body[data-ready]", timeout=300_000)
        box = tab.locator("#over").bounding_box()
        assert box is not None
        x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] * 0.3
        tab.mouse.move(x, y)
        tab.evaluate(FRAMES)
        before, begun, cpu, steps = seen(tab), time.perf_counter(), cpu_seconds(), 0
        while time.perf_counter() - begun < seconds:
            steps += 1
            tab.mouse.move(x + r * math.cos(steps / 29), y + r * math.sin(steps / 17))
        after, passed, cpu = seen(tab), time.perf_counter() - begun, cpu_seconds() - cpu
        chromium.close()
    frames, shown = (b - a for a, b in zip(before, after, strict=True))
    spent = 1000 * cpu / max(frames, 1)
    return Row(
        f"hover over {count:,} points, from one frame to the next",
        passed / max(frames, 1),
        budget=1 / 30,
        note=f"{frames / passed:.0f} frames/s, {spent:.1f} ms of processor time each; "
        f"{steps / passed:.0f} moves/s, {shown / passed:.0f} to another point; "
        f"load {os.getloadavg()[0]:.1f}",
    )


def seen(tab) -> tuple[int, int]:
    """Frames so far, and those in which another point was shown than before."""
    found = tab.evaluate("window.seen")
    return found["frames"], found["shown"]


def cpu_seconds() -> float:
    """Processor time of all processes of the browser that descend from this one."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition(") ")
        except OSError:  # it has ended
            continue
        fields = rest.split()
        pid = int(status.parent.name)
        parents[pid] = int(fields[1])
        browser = "chrom" in name
        spent[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * browser

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return sum(time for pid, time in spent.items() if ours(pid))


if __name__ == "__main__":
    from benchmarks.__main__ import show

    with tempfile.TemporaryDirectory() as made:
        show("The page of many points", rows(Path(made), "--quick" in sys.argv))
