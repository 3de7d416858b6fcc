import gc

import pytest

from pipeline.startup import importing


def test_the_collector_rests_while_importing_and_works_again_afterwards() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_it_works_again_after_a_failed_import_too() -> None:
    with pytest.raises(ImportError), importing():
        import pipeline.no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    gc.unfreeze()
