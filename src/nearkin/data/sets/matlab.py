"""MATLAB files: read in a process of its own, as SciPy's reader can crash on a broken one.

The process is matlab_reader.py, run without the package: it writes the variable as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from nearkin.extras import optional

SECONDS = 300
"""How long a file may take; the 16,185 pictures of Cars196 take two."""


def variable_of(path: Path, name: str) -> list[Any]:
    """The values of a variable of a MATLAB file; a struct is a dictionary by its fields.

    Raises:
        ValueError: the file is missing, broken, or holds no such variable; in one line.
    """
    with optional():
        import scipy  # noqa: F401 - for the process

    if not path.is_file():
        raise ValueError(f"{path}: missing")
    call = [sys.executable, "-P", str(Path(__file__).with_name("matlab_reader.py")), path, name]
    try:
        done = subprocess.run(call, capture_output=True, timeout=SECONDS)
        found: dict[str, Any] = json.loads(done.stdout)
    except (ValueError, subprocess.TimeoutExpired):  # it crashed, or never ends
        found = {"wrong": "its reader crashed or took too long"}
    if "wrong" in found:
        raise ValueError(f"{path}: not a whole MATLAB file with {name} ({found['wrong']})")
    return found["values"]
