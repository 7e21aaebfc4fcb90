"""Claim: every data set says where it comes from, and `check` judges it without ever failing."""

import pytest

from nearkin.data import DATASETS, check, where


@pytest.mark.parametrize("name", DATASETS)
def test_where_to_get_each(name):
    head, page, licence, layout = where(name).splitlines()
    assert head == name
    assert page.startswith("  page  ")
    assert licence.startswith("  licence  ")
    assert layout.startswith("  layout  ")


def test_an_unknown_name_is_an_error():
    for ask in (where, check):
        with pytest.raises(ValueError, match="did you mean 'cub'"):
            ask("cubb")


def test_a_set_that_is_there_and_one_that_is_not(tmp_path):
    verdict = check("mnist-5k")
    assert verdict.sound
    assert "train: 4,000 items of 10 classes" in str(verdict)
    verdict = check("mnist", tmp_path)
    assert not verdict.sound
    assert verdict.text.startswith("mnist: not sound\n  BAD no MNIST/raw")
    assert not check(f"folder:{tmp_path / 'absent'}").sound
