"""Claim: whatever a stranger's file holds, it is read, or refused in one line that names it, within
seconds and in bounded memory. 25 files of each kind here, under fixed seeds; `make campaign` has
2,000 of each.
"""

import pytest

from fuzz import KINDS, attempts, seed_of

COUNT = 25


@pytest.mark.parametrize("name", KINDS)
def test_files_changed_at_random_are_read_or_refused_in_one_line(name, tmp_path):
    faults = list(attempts(KINDS[name], COUNT, seed_of(name), tmp_path))
    assert not faults, "\n".join(faults)
