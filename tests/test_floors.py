"""A file imports only from the floors below it, and every file has a floor."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "nearkin"
FLOORS = [
    {"names", "tensors"},
    {"data", "backbones", "graphs", "losses", "measure"},
    {"runs"},
    {"studies"},
    {"report", "words", "cli"},
]
NEIGHBOURS = {("losses", "graphs")}  # the only wings of one floor that may know each other
WHOLE = {"__init__", "__main__"}  # the roof: it sees everything


def wing(module: str) -> str:
    """nearkin.data.cache -> data."""
    return module.split(".")[1] if "." in module else "__init__"


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def imports(path: Path) -> set[str]:
    """The wings that a file imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("nearkin")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearkin"):
            if node.module == "nearkin":
                found |= {f"nearkin.{alias.name}" for alias in node.names}
            else:
                found.add(node.module or "")
    return {wing(module) for module in found}


def test_every_file_imports_only_from_below():
    for path in sorted(SOURCE.rglob("*.py")):
        here = path.relative_to(SOURCE).with_suffix("").parts[0]
        if here in WHOLE:
            continue
        for other in imports(path) - {here}:
            allowed = floor(other) < floor(here) or (here, other) in NEIGHBOURS
            allowed = allowed or (here == "cli" and other in ("report", "words"))
            assert allowed, f"{path.relative_to(SOURCE)} ({floor(here)}) imports {other}"


def test_a_floor_holds_no_name_that_is_gone():
    here = {p.stem for p in SOURCE.iterdir()} - WHOLE
    assert {name for names in FLOORS for name in names} <= here | {"backbones"}


def caption(path: Path) -> str:
    """The first sentences of a file, as the README's tree says them."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())


def test_the_readme_names_every_file_with_what_it_is_for():
    readme = (SOURCE.parents[1] / "README.md").read_text()
    for path in SOURCE.rglob("*.py"):
        if path.parent == SOURCE and path.name == "__init__.py":
            continue
        name = f"{path.parent.name}/" if path.name == "__init__.py" else path.name
        assert f" {name} " in readme, f"the README's tree lacks {path.name}"
        assert caption(path) in readme, f"the README's tree should say of {name}: {caption(path)}"
