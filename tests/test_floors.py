"""A file imports only from the floors below it, and every file has a floor."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "nearkin"
FLOORS = [
    {"extras", "tensors"},
    {"budget", "stopping", "names", "labels", "notebook", "registry", "files"},
    {"download", "leases", "tensorfiles"},
    {"closed", "data", "graphs", "measure"},
    {"models"},
    {"losses"},
    {"doctor"},
    {"runs", "search"},
    {"answers"},
    {"studies"},
    {"report"},
    {"app"},
]
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
            name = path.relative_to(SOURCE)
            assert floor(other) < floor(here), f"{name} ({floor(here)}) imports {other}"


def test_a_floor_holds_no_name_that_is_gone():
    here = {p.stem for p in SOURCE.iterdir()} - WHOLE
    assert {name for names in FLOORS for name in names} <= here
