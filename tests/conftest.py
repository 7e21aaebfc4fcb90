"""What every test starts with: caches in a folder of their own, never in the user's."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def caches_apart(tmp_path_factory):
    """NEARKIN_CACHE names a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARKIN_CACHE", str(tmp_path_factory.mktemp("caches")))
        yield
