"""Golden cases of rivals: tests/golden/*.json, and the folder NEARKIN_GOLDEN where that is set."""

import json
import os
from pathlib import Path

import pytest

FOLDERS = [Path(__file__).parent / "golden"]
FOLDERS += [Path(folder) for folder in [os.environ.get("NEARKIN_GOLDEN")] if folder]


def cases(method: str) -> list:
    """Every case of a method that is found, as pytest's parameters, each named by its file."""
    found = []
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.json")):
            value = json.loads(path.read_text())
            for case in value if isinstance(value, list) else []:
                if case.get("method") == method:
                    found.append(pytest.param(case, id=f"{folder.name}-{case['name']}"))
    assert found, f"no golden case of {method}"
    return found
