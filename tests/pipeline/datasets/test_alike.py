import unicodedata

import pytest

from pipeline.datasets.alike import alike, both, forms, refuse_alike
from stochca.errors import UserError


def test_pairs_that_a_person_takes_for_one() -> None:
    composed, parted = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    names = ["cat", "dog", composed, "Cat", "cat ", parted, "hot dog", "hotdog", "hot_dog"]
    assert list(alike(names)) == [("cat", "Cat"), ("cat", "cat "), (composed, parted)]
    assert list(alike(["cat", "cat", "m2", "m\u00b2", "Masse", "Ma\u00dfe"])) == []
    assert set(forms(composed)) == set(forms(parted)) == {composed, parted}
    assert forms("cat") == ["cat"]


def test_whole_numbers_as_programs_for_tables_write_them() -> None:
    pairs = [("1", "1.0"), ("1", "01"), ("0", "0.0"), ("0", "000"), ("10", "010.00")]
    assert [pair for pair in pairs if list(alike(pair)) != [pair]] == []
    assert list(alike(["1", "10", "100", "1.1", "1.10", "2.0", "-2", "1e1", "v1", "v1.0", "\u00b2"])) == []


def test_what_can_not_be_seen_is_written_out() -> None:
    assert both("cat", "cat ") == "'cat' and 'cat '"
    assert both("caf\u00e9", "cafe\u0301") == r"'caf\xe9' and 'cafe\u0301'"
    with pytest.raises(UserError, match=r"^it has the classes 'Cat' and 'cat', which look alike; give"):
        refuse_alike("it", "classes", ["cat", "a", "A", "Cat"])
    refuse_alike("it", "classes", ["a", "A", "cat", "dog"])
