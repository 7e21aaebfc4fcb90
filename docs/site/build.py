"""Builds the documentation site: python docs/site/build.py FOLDER writes html/ and one zip.

Warnings are errors. Links within the site are checked by Sphinx and once more in the pages that it
wrote; links to other sites are listed, and checked where the network allows (`--online`).
"""

from __future__ import annotations

import re
import shutil
import sys
import time
import urllib.request
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from assemble import assemble
from sphinx.cmd.build import main as sphinx

HERE = Path(__file__).parent
FETCHED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}
"""Elements that a browser fetches when it opens a page -> their attribute."""


class Links(HTMLParser):
    """Where a page leads, what it fetches, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.leads, self.fetches, self.anchors = set[str](), set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.leads.add(found["href"])
        canonical = found.get("rel") in ("canonical", "search", "index", "next", "prev", "author")
        if tag in FETCHED and FETCHED[tag] in found and not canonical:
            self.fetches.add(found[FETCHED[tag]])


def check(html: Path) -> tuple[list[str], set[str]]:
    """What is wrong with the links of a built site, and the addresses of other sites."""
    pages = {
        path: Links(path.read_text())
        for path in html.rglob("*.html")
        if path.relative_to(html).parts[0] != "_static"
    }
    wrong, outside = [], set()
    for path, page in pages.items():
        here = path.relative_to(html)
        for address in sorted(page.leads | page.fetches):
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") or parts.netloc:
                outside.add(address)
                if address in page.fetches:
                    wrong.append(f"{here} fetches {address}")
                if parts.scheme == "http" and parts.hostname != "127.0.0.1":
                    wrong.append(f"{here}: {address} is not https")
                continue
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                wrong.append(f"{here}: {address} leads nowhere")
            elif target in pages and parts.fragment:
                there = unquote(parts.fragment) in pages[target].anchors
                if not there:
                    wrong.append(f"{here}: {address} has no such anchor")
    for style in html.rglob("*.css"):
        for address in re.findall(
            r"url\(['\"]?(https?:[^)'\"]*)|@import ['\"](https?:[^'\"]*)", style.read_text()
        ):
            wrong.append(f"{style.relative_to(html)} fetches {''.join(address)}")
    return wrong, outside


def remove_stale(source: Path, html: Path) -> None:
    """Remove the pages that an earlier build wrote of sources that are gone."""
    for path in html.rglob("*.html"):
        name = path.relative_to(html)
        made = name.parts[0] in ("_static", "genindex.html", "search.html", "py-modindex.html")
        there = any((source / name.with_suffix(end)).is_file() for end in (".md", ".rst"))
        if not made and not there:
            path.unlink()


def reachable(address: str) -> bool:
    """Whether an address of another site answers."""
    asked = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "nearkin-docs"})
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status < 400
    except OSError:
        return False


def pack(html: Path, target: Path) -> None:
    """The site as one zip, the same bytes for the same pages."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(p for p in html.rglob("*") if p.is_file()):
            if path.name not in (".buildinfo", "objects.inv.tmp"):
                info = zipfile.ZipInfo(
                    f"nearkin-docs/{path.relative_to(html)}", (2026, 1, 1, 0, 0, 0)
                )
                info.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(info, path.read_bytes())


def main(folder: Path, online: bool = False) -> int:
    began = time.monotonic()
    assemble(folder / "source")
    html = folder / "html"
    words = [
        "-b",
        "html",
        "-c",
        str(HERE),
        "-d",
        str(folder / "doctrees"),
        "-W",
        "--keep-going",
        "-q",
    ]
    packed = folder / "nearkin-docs.zip"
    if not packed.exists():  # a build that was stopped, or failed, is no ground for the next
        for part in (html, folder / "doctrees"):
            shutil.rmtree(part, ignore_errors=True)
    packed.unlink(missing_ok=True)
    remove_stale(folder / "source", html)
    if code := sphinx([*words, str(folder / "source"), str(html)]):
        return code
    wrong, outside = check(html)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(outside)} links to other sites", "checked" if online else "not checked (offline)")
    dead = [address for address in sorted(outside) if online and not reachable(address)]
    for address in dead:
        print(f"does not answer: {address}", file=sys.stderr)
    if wrong or dead:
        return 1
    pack(html, packed)
    size = packed.stat().st_size / 1e6
    pages, seconds = len(list(html.rglob("*.html"))), time.monotonic() - began
    print(f"{html}/index.html: {pages} pages in {seconds:.0f} s; nearkin-docs.zip {size:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), "--online" in sys.argv))
