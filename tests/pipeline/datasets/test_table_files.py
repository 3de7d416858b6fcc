from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.datasets.table_files import read_table
from stochca.errors import UserError

EXPECTED = (["path", "label"], [["a.png", "007"], ["b, c.png", ""]])


def read(path: Path) -> tuple[list[str], list[str], list[list[str]]]:
    """Columns, where the rows stand, and the rows."""
    columns, rows = read_table(path, path.name)
    found = list(rows)
    return columns, [place for place, _ in found], [values for _, values in found]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(path.name)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na.png,007\n"b, c.png",\n',
        '\ufeffpath;label\r\n a.png ;007\r\n\r\n;\r\n"b, c.png";\r\n',  # as Excel writes it
        "path\tlabel\na.png\t007\nb, c.png\t",
    ],
)
def test_csv_keeps_text_as_it_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    columns, places, rows = read(tmp_path / "t.csv")
    assert (columns, rows) == EXPECTED
    assert places[0] == "line 2"


def test_json_lines(tmp_path: Path) -> None:
    lines = '{"path": "a.png", "label": "007"}\n\n{"path": "b, c.png", "label": null}\n'
    (tmp_path / "t.jsonl").write_text(lines)
    assert read(tmp_path / "t.jsonl") == (EXPECTED[0], ["line 1", "line 3"], EXPECTED[1])
    (tmp_path / "t.jsonl").write_text('{"path": "a"}\n{"label": 3, "box": [1]}')
    assert read(tmp_path / "t.jsonl")[2] == [["a", "", ""], ["", "3", ""]]
    (tmp_path / "t.jsonl").write_text('{"path": "\\ud800"}')
    assert read(tmp_path / "t.jsonl")[2] == [["\\ud800"]]


def test_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": ["a.png", "b, c.png"],
            "label": pa.array(["007", None]).dictionary_encode(),
            "image": [b"x", b"y"],
            "box": [[1], [2]],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    assert read(tmp_path / "t.parquet") == (EXPECTED[0], ["row 1", "row 2"], EXPECTED[1])
    parquet.write_table(pa.table({"label": [3, 4], "share": [0.5, float("nan")]}), tmp_path / "n.parquet")
    assert read(tmp_path / "n.parquet")[2] == [["3", "0.5"], ["4", ""]]


def test_what_is_no_table_is_one_sentence(tmp_path: Path) -> None:
    refused(tmp_path / "gone.csv", "can't be read: No such file")
    for name, content, words in (
        ("t.xlsx", b"PK", ["no table that is read here; save it as .csv, .tsv, .jsonl, .parquet"]),
        ("t.csv", b"path,label\n\xff\xfe,1\n", ["no text in UTF-8"]),
        ("t.csv", b"path,label\na.png\n", ["line 2, has 1 values for 2 columns"]),
        ("t.csv", b'path,label\n"a.png,1\n', ["can't be read as .csv"]),
        ("t.csv", b"path,path\n", ["two columns that are called 'path'"]),
        ("t.jsonl", b'{"path": 1}\n{"path"\n', ["can't be read as .jsonl: line 2: Expecting"]),
        ("t.jsonl", b'{"a": 1}\n{"label": "cat", "label": "dog"}\n', ["line 2 says 'label' twice"]),
        ("t.jsonl", b"[1]\n", ["line 1 must be an object, found list"]),
        ("t.parquet", b"PAR1", ["can't be read as .parquet"]),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, *words)


def test_a_file_without_rows(tmp_path: Path) -> None:
    for content, columns in (("", []), ("path,label\n", ["path", "label"])):
        (tmp_path / "t.csv").write_text(content)
        assert read(tmp_path / "t.csv") == (columns, [], [])
