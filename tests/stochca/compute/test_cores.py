import pytest

from stochca.compute.cores import cores_of_process


def test_ranks_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = cores_of_process()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores_of_process() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(100 * alone))
    assert cores_of_process() == 1
