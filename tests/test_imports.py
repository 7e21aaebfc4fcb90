"""What listing names, help and single wings import, counted in modules."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "scipy", "sklearn", "timm", "torchvision", "faiss", "PIL", "matplotlib"}
HEAVY |= {"jinja2", "lightning_fabric", "pytorch_metric_learning", "pandas", "rich", "tensorboard"}
MOST = 400  # modules; `import torch` alone makes them 1,300
COMMAND = """
import sys
from nearkin.__main__ import main

try:
    main()
except SystemExit as left:
    assert not left.code, left
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", ["list", "--help", "train --help", "study --help", "embed --help"]
)
def test_names_and_help_import_nothing_heavy(words):
    asked = [sys.executable, "-c", COMMAND, *words.split()]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "nearkin" in done.stdout or "toolkit" in done.stdout
    imported = done.stderr.split()
    assert not HEAVY & set(imported)
    assert len(imported) < MOST
