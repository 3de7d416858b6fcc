import random
from dataclasses import replace

from pipeline.datasets.preparing.duplicates import leave_out_repeated, merge_groups, report
from pipeline.datasets.preparing.ingest import Row


def row(number: int, group: str, source: bytes) -> Row:
    return Row(str(number), 0, "all", group, None, source, b"", b"", 0)


def connected(rows: list[Row]) -> list[str]:
    """The first group of all that are reached from each over equal images, slowly."""
    reached = {row.group: {row.group} for row in rows}
    for _ in rows:
        for one in rows:
            for other in rows:
                if one.source_hash == other.source_hash:
                    together = reached[one.group] | reached[other.group]
                    for group in together:
                        reached[group] = together
    return [min(reached[row.group]) for row in rows]


def test_groups_that_share_images_become_one() -> None:
    for seed in range(100):
        draw = random.Random(seed)
        alike = [bytes(8) + bytes([end] * 24) for end in range(3)]  # which begin alike, but differ
        hashes = [*alike, *(bytes([k] * 32) for k in range(1, 14))]
        rows = [
            row(number, f"{draw.randrange(12):02}", draw.choice(hashes))
            for number in range(draw.randint(1, 16))
        ]
        assert merge_groups(rows) == connected(rows), seed


def test_only_equal_hashes_are_the_same_image() -> None:
    begin = bytes(8)
    rows = [row(0, "a", begin + bytes([1] * 24)), row(1, "b", begin + bytes([2] * 24))]
    assert merge_groups(rows) == ["a", "b"]
    assert report(rows, ["train", "train"], ["cat"]) == []
    rows.append(row(2, "c", begin + bytes([1] * 24)))
    assert merge_groups(rows) == ["a", "b", "a"]
    assert [problem["file"] for problem in report(rows, ["train"] * 3, ["cat"])] == ["2"]


def test_a_long_chain_of_groups() -> None:
    """Each shares an image with the next, the last in the alphabet first."""
    count = 20_000
    rows = [
        row(number, f"{count - number - half:06}", number.to_bytes(8) * 4)
        for number in range(count)
        for half in (0, 1)
    ]
    assert set(merge_groups(rows)) == {"000000"}


def test_images_of_one_colour_join_no_groups() -> None:
    """But those that are on their own stay together."""
    groups = ("a", "a", "b", "3", "4")
    rows = [replace(row(number, group, bytes(32)), is_blank=True) for number, group in enumerate(groups)]
    assert merge_groups(rows) == ["a", "a", "b", "3", "3"]
    told = [(p["file"], p["problem"]) for p in report(rows, ["train"] * 5, ["cat"])]
    assert told == [("3 images", "are of one colour, and of 2 groups"), ("4", "is the same image as 3")]


def test_one_of_equal_pictures_of_a_class_and_domain_stays() -> None:
    for seed in range(50):
        draw = random.Random(seed)
        rows = [
            Row(
                str(number),
                draw.randrange(2),
                draw.choice("ab"),
                str(number),
                None,
                b"",
                draw.choice([b"x", b"y"]),
                b"",
                0,
            )
            for number in range(14)
        ]
        splits = [draw.choice(["train", "val", "test"]) for _ in rows]
        kept, problems = leave_out_repeated(rows, splits)
        for row in rows:
            alike = [
                other
                for other in range(14)
                if (rows[other].label, rows[other].domain, rows[other].pixels_hash)
                == (row.label, row.domain, row.pixels_hash)
            ]
            staying = [other for other in alike if kept[other] != "repeated"]
            assert len(staying) == 1
            assert kept[staying[0]] == splits[staying[0]]
            assert ("test" in {splits[other] for other in alike}) == (kept[staying[0]] == "test")
        assert [problem["file"] for problem in problems] == [
            row.id
            for wanted in ("test", "val", "train")
            for row, split, now in zip(rows, splits, kept, strict=True)
            if split == wanted and now == "repeated"
        ]


def test_equal_images_of_two_classes_are_told_within_a_group_too() -> None:
    rows = [replace(row(number, "patient", bytes(32)), label=number // 2) for number in range(3)]
    (problem,) = report(rows, ["train"] * 3, ["cat", "dog"])
    assert problem["file"] == "2"
    assert problem["problem"] == "is the same image as 0, but of the class dog, not cat"
