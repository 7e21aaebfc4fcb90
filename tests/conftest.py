"""What every test starts with: caches in a folder of their own, never in the user's; no network,
for which libraries wait; no wait for the disk; and what is imported is left out of every search for
garbage, which took two fifths of the time of a small run."""

import gc
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def caches_apart(tmp_path_factory):
    """NEARKIN_CACHE names a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARKIN_CACHE", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(autouse=True, scope="session")
def real_fsync():
    """In this process fsync looks whether a file is open, and waits for no disk, which takes
    milliseconds for each row; what it is for is tried in test_durability.py, which has the real."""
    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: os.fstat(number) and None)
        yield real


def pytest_configure():
    """Nothing that is imported is garbage: it is not searched for until all tests are known."""
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def imports_left_alone():
    """What the tests of other modules have imported is left out too."""
    gc.collect()
    gc.freeze()
