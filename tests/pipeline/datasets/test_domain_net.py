import shutil
from pathlib import Path

import pytest

from pipeline.datasets import domain_net
from pipeline.datasets.source import Source
from tests.pipeline.datasets.domain_trees import SIDES, draw, found, miniature, pack, params, refused

DOMAINS = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]
FACTS = miniature(domain_net.FACTS, 2, dict.fromkeys(DOMAINS, 3))


def load(root: Path, domains: list[str] | None = None) -> Source:
    return domain_net.load(params("domain_net", root, domains), SIDES, FACTS)


def names(domain: str, duplicate: bool = False) -> list[str]:
    return [
        f"{domain}/The_Eiffel_Tower/{domain}_001_000001.jpg",
        *([f"{domain}/The_Eiffel_Tower/{domain}_001_000002.jpg"] if duplicate else []),
        f"{domain}/zebra/{domain}_345_000001.jpg",
        f"{domain}/zebra/{domain}_345_000002.jpg",
    ]


def write_lists(root: Path, domain: str) -> None:
    first, *others = names(domain)
    (root / f"{domain}_train.txt").write_text("".join(f"{name} 344\n" for name in reversed(others)))
    (root / f"{domain}_test.txt").write_text(f"{first} 0\n")


def test_the_official_numbers() -> None:
    assert sum(domain_net.FACTS.images.values()) == 586_575


def test_six_archives_with_their_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for domain in DOMAINS:
        draw(tmp_path / "raw", *names(domain))
        pack(tmp_path / "raw" / domain, tmp_path / f"raw/{domain}.zip")
        write_lists(tmp_path / "raw", domain)
    source = load(tmp_path / "raw")
    expected = [name for domain in DOMAINS for name in names(domain)]
    assert list(found(source).items()) == [
        (name, (name.split("/")[1], name.split("/")[0])) for name in expected
    ]
    assert source.classes == ["The_Eiffel_Tower", "zebra"]
    assert source.domains == DOMAINS
    assert source.problems == []


@pytest.mark.parametrize("folder", [".", "domain_net", "DomainNet"])
def test_the_cleaned_folders_need_no_lists(folder: str, tmp_path: Path) -> None:
    draw(tmp_path / folder, *(name for domain in DOMAINS for name in names(domain)))
    assert load(tmp_path).count == 18


def test_duplicates_that_the_cleaned_lists_leave_out(tmp_path: Path) -> None:
    draw(tmp_path, *names("real", duplicate=True), *names("sketch"))
    refused(
        lambda: load(tmp_path, ["real", "sketch"]),
        "the domain real of DomainNet has 3 images in the cleaned version, but",
        "has 4; download real_train.txt and real_test.txt",
    )
    write_lists(tmp_path, "real")
    source = load(tmp_path, ["real", "sketch"])
    assert list(found(source)) == [*names("real"), *names("sketch")]
    assert source.problems == [
        {
            "file": "real",
            "problem": "holds 1 images that the cleaned version's lists do not name",
            "action": "left out",
        }
    ]


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, *names("real"), *names("sketch"))
    refused(
        lambda: load(tmp_path), "neither the folder clipart nor the archive clipart.zip", "ai.bu.edu/M3SDA"
    )
    write_lists(tmp_path, "real")
    (tmp_path / "real/zebra/real_345_000002.jpg").unlink()
    refused(
        lambda: load(tmp_path, ["real"]),
        "1 of the 3 images",
        "missing, first real/zebra/real_345_000002.jpg",
        "download real.zip",
    )
    shutil.rmtree(tmp_path / "real/zebra")
    refused(lambda: load(tmp_path, ["real"]), "2 of the 3", "first real/zebra/real_345_000001.jpg")
    (tmp_path / "real_test.txt").unlink()
    refused(lambda: load(tmp_path, ["real"]), "real_test.txt is missing")
    (tmp_path / "real_train.txt").unlink()
    refused(
        lambda: load(tmp_path, ["real", "sketch"]), "1 real + 3 sketch images and none of the class zebra"
    )


def test_other_lists_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, *names("real"))
    write_lists(tmp_path, "real")
    (tmp_path / "real_train.txt").write_text(f"{names('real')[1]} 344\n")
    refused(lambda: load(tmp_path, ["real"]), "3 real images, but", "2 real images")
