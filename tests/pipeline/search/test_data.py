"""What trials on another machine read, and the temporary folder that it lies in there."""

import getpass
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.images import prepared
from pipeline.runtime.files import write_json
from pipeline.search.data import BACKBONE, TrialData, scratch
from stochca.backbones.card import CARD_FILE, BackboneCard
from stochca.errors import UserError
from tests.pipeline.backbone_card import backbone_card

NOBODY = 65534


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def own(shared: Path) -> Path:
    """Where this user's folder is, or will be."""
    return shared / f"stochca-{getpass.getuser()}"


def project(folder: Path, **card: Any) -> TrialData:
    """The inputs of a project whose backbone has such a card."""
    written = backbone_card(**card)
    write_json(folder / BACKBONE / CARD_FILE, written.to_dict())
    write_json(folder / prepared.FOLDER / prepared.MANIFEST, {"fingerprint": "f" * 64})
    return TrialData.of(folder, written, "f" * 64)


def test_another_machine_takes_no_other_card_for_the_same_weights(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first = project(here)
    elsewhere = TrialData(there, first.backbone, first.fingerprint)
    assert elsewhere.root(first.packed).parent == scratch()

    second = project(here, global_pool="avg")
    assert second.are_in(here)
    assert not first.are_in(here)
    elsewhere = TrialData(there, second.backbone, second.fingerprint)
    card = BackboneCard.from_file(elsewhere.root(second.packed) / BACKBONE / CARD_FILE)
    assert card.global_pool == "avg"


def test_the_temporary_folder_is_made_closed_to_others_and_found_again(own: Path) -> None:
    assert scratch() == own
    assert own.stat().st_mode & 0o777 == 0o700
    assert scratch() == own


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o720, 0o702, 0o755, 0o777])
def test_a_folder_that_is_open_to_others_is_refused(own: Path, mode: int) -> None:
    own.mkdir()
    own.chmod(mode)
    with pytest.raises(UserError, match=rf"{own} .*closed to others \(mode 0700\).* remove it"):
        scratch()


def test_a_link_is_refused_wherever_it_leads(own: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for target in (closed, tmp_path / "nowhere"):
        own.symlink_to(target)
        with pytest.raises(UserError, match="is not a folder of yours"):
            scratch()
        own.unlink()


def test_a_file_is_refused(own: Path) -> None:
    own.touch(mode=0o600)
    with pytest.raises(UserError, match="is not a folder of yours"):
        scratch()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_someone_else_is_refused(own: Path) -> None:
    own.mkdir(mode=0o700)
    os.chown(own, NOBODY, NOBODY)
    with pytest.raises(UserError, match="is not a folder of yours"):
        scratch()
