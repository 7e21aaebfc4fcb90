"""Claim: what the package is built from is written down, file by file, with licence and digest."""

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCKED = re.compile(r"([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [LOCKED.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(found)
    return {canonical(match[1]): match[2] for match in found if match}


def test_the_lock_file_has_the_versions_of_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {canonical(name): version for name, version in (line.split("==") for line in lines)}
    for name, version in locked().items():
        assert pinned.get(name, version) == version, f"{name}: run python .ci/lock.py"


def test_every_library_of_the_package_itself_is_locked_to_a_version_that_it_takes():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked()[canonical(wanted.name)])


def test_every_locked_package_has_its_licence():
    lines = (ROOT / "docs" / "licences.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    listed = {canonical(name): version for name, version, _ in cells[2:]}
    assert listed == locked()
    assert all(licence for *_, licence in cells)


def test_no_registry_is_named():
    for name in ("requirements.lock", "constraints.txt", ".ci/lock.py", "Makefile"):
        assert not re.search(r"https?://|--(extra-)?index-url", (ROOT / name).read_text()), name


def test_what_is_said_to_be_safe_names_files_that_exist():
    text = (ROOT / "SECURITY.md").read_text()
    for path in re.findall(r"`((?:data|models|runs)/[\w/]+(?:\.py)?|\w+\.py)/?`", text):
        assert (ROOT / "src/nearkin" / path).exists(), path


KINDS = {"pictures", "archives", "npz", "checkpoints", "models", "rows", "notes", "recipes"}
KINDS |= {"Markdown", "threads", "limits", "leftovers", "durability", "folders of a NAS"}
KINDS |= {"encodings", "labels"}


def test_every_kind_of_fault_has_tests_that_are_there():
    lines = (ROOT / "tests" / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert {kind for kind, *_ in rows} >= KINDS
    for _, fault, tests in rows[2:]:
        file = ""
        for named in tests.replace("`", "").split(", "):
            first, _, second = named.rpartition("::")
            file = first or file  # of a file that was just named
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^def {second}\(", text, re.M), f"{fault}: {file} has no {second}"
