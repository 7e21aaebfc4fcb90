"""Writes the tree of src/nearkin, a line a file, into docs/architecture.md: python docs/tree.py."""

import ast
from pathlib import Path

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "nearkin"
BEGIN, END = "<!-- tree -->\n", "<!-- end of the tree -->\n"


def caption(path: Path) -> str:
    """The first line of a file's docstring; of a folder, that of its __init__.py."""
    file = path / "__init__.py" if path.is_dir() else path
    text = (ast.get_docstring(ast.parse(file.read_text())) or "") if file.suffix == ".py" else ""
    return text.partition("\n")[0]


def lines(folder: Path, indent: str = "") -> list[str]:
    """The folder's files with their captions, then its sub-folders."""
    found = []
    parts = [p for p in folder.iterdir() if p.name not in ("__pycache__", "__init__.py")]
    for path in sorted(parts, key=lambda p: (p.is_dir(), p.name)):
        name = f"{indent}{path.name}/" if path.is_dir() else f"{indent}{path.stem}"
        if path.is_dir() and (path / "__init__.py").exists():
            found += ["", f"{name:<28}{caption(path)}".rstrip(), *lines(path, indent + "  ")]
        elif path.suffix == ".py":
            found.append(f"{name:<28}{caption(path)}".rstrip())
    return found


def main() -> None:
    """Put the tree between its two marks."""
    page = DOCS / "architecture.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    tree = "\n".join(["```", "src/nearkin/", *lines(SOURCE, "  "), "```", ""])
    page.write_text(before + BEGIN + tree + END + after)


if __name__ == "__main__":
    main()
