"""python matlab_reader.py FILE VARIABLE: a variable of a MATLAB file as JSON, or what is wrong."""

import json
import sys
from typing import Any

MEMORY = 4 * 2**30
"""Bytes of addresses that a file may make of itself."""


def plain(value: Any) -> Any:
    """A value of SciPy's as one of JSON: structs as dictionaries, and what is neither as text."""
    if getattr(value, "dtype", None) is not None and value.dtype.names:
        return {name: plain(value[name]) for name in value.dtype.names}
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    return value if isinstance(value, int | float | str) else str(value)


def answer(path: str, variable: str) -> dict[str, Any]:
    """The values of a variable, or what is wrong."""
    import numpy as np
    from scipy.io import loadmat

    try:
        found = loadmat(path, squeeze_me=True, variable_names=[variable])[variable]
        return {"values": [plain(value) for value in np.atleast_1d(found)]}
    except Exception as error:  # SciPy raises what the bytes happen to lead to
        return {"wrong": " ".join(f"{error}".split()) or type(error).__name__}


def main(path: str, variable: str) -> None:
    """Print the JSON."""
    import scipy.io  # noqa: F401 - before memory is limited

    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(answer(path, variable)))


if __name__ == "__main__":
    main(*sys.argv[1:])
