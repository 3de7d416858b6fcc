"""A paper's table as Markdown, LaTeX and CSV."""

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from pipeline.report.paper_table import Block, Cell, PaperTable, TableLine
from pipeline.runtime.files import replace_file

CSV_COLUMNS = (
    *("method", "target", "selection", "mean", "error", "n", "source"),
    *("error_is", "dataset", "backbone", "remark"),
)
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def write_table(folder: Path, table: PaperTable) -> list[Path]:
    """table.md, table.tex and table.csv in a folder, which is made if need be."""
    markdown, latex, plain = (folder / f"table.{end}" for end in ("md", "tex", "csv"))
    with replace_file(markdown) as temporary:
        temporary.write_text(as_markdown(table), encoding="utf-8")
    with replace_file(latex) as temporary:
        temporary.write_text(as_latex(table), encoding="utf-8")
    with replace_file(plain) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(_csv_rows(table))
    return [markdown, latex, plain]


def as_markdown(table: PaperTable) -> str:
    """A table per block under its title; why cells are empty stands below."""

    def text(block: Block, line: TableLine, column: int) -> str:
        cell = line.cells[column]
        if cell.mean is None:
            return f"- [{table.reasons.index(cell.missing) + 1}]"
        number = cell.printed + (f" ± {cell.printed_error}" if cell.printed_error else "")
        return f"**{number}**" if block.is_best(line, column) else number

    columns = range(len(table.columns))
    header = ["method", *(f"{column.group} {column.title}".strip() for column in table.columns)]
    parts = [table.caption]
    for block in table.blocks:
        rows = [header, ["---", *("--:" for _ in columns)]]
        rows += [[line.method, *(text(block, line, column) for column in columns)] for line in block.lines]
        parts.append(f"**{block.title}**")
        parts.append(
            "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        )
    parts += [f"[{number}] {reason}" for number, reason in enumerate(table.reasons, start=1)]
    return "\n\n".join([*parts, *table.notes]) + "\n"


def as_latex(table: PaperTable) -> str:
    """A `table` environment with a booktabs tabular; blocks are set off by rules and titles."""
    width = len(table.columns) + 1
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(table.caption)}}}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        *_latex_groups(table),
        _latex_row(["Method", *(escape(column.title) for column in table.columns)]),
    ]
    for block in table.blocks:
        lines += ["\\midrule", f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{escape(block.title)}}}}} \\\\"]
        lines += [
            _latex_row(
                [
                    escape(line.method),
                    *(_latex_cell(table, block, line, column) for column in range(len(table.columns))),
                ]
            )
            for line in block.lines
        ]
    lines += ["\\bottomrule", "\\end{tabular}"]
    below = [f"$^{{{number}}}$ {escape(reason)}." for number, reason in enumerate(table.reasons, start=1)]
    below += [escape(note) for note in table.notes]
    if below:
        lines += ["", "\\smallskip", "\\begin{minipage}{\\linewidth}", "\\footnotesize"]
        lines += ["\\par\n".join(below), "\\end{minipage}"]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Text for LaTeX, every character of it printed as it is."""
    return "".join(LATEX.get(character, character) for character in text)


def _latex_groups(table: PaperTable) -> list[str]:
    """The titles above several columns, if there are any."""
    if not any(column.group for column in table.columns):
        return []
    cells, rules, start = [""], [], 2
    for title, columns in groupby(column.group for column in table.columns):
        count = len(list(columns))
        cells.append(f"\\multicolumn{{{count}}}{{c}}{{{escape(title)}}}")
        if title:
            rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [_latex_row(cells), " ".join(rules)]


def _latex_cell(table: PaperTable, block: Block, line: TableLine, column: int) -> str:
    cell = line.cells[column]
    if cell.mean is None:
        return f"--$^{{{table.reasons.index(cell.missing) + 1}}}$"
    number = f"\\textbf{{{cell.printed}}}" if block.is_best(line, column) else cell.printed
    return number + (f" $\\pm$ {cell.printed_error}" if cell.printed_error else "")


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _csv_rows(table: PaperTable) -> list[list[str | float | int]]:
    def row(block: Block, line: TableLine, column: int) -> list[str | float | int]:
        cell: Cell = line.cells[column]
        place = table.columns[column]
        return [
            *(line.method, place.target, block.selection),
            "" if cell.mean is None else cell.mean,
            "" if cell.error is None else cell.error,
            cell.n or "",
            block.source,
            "" if cell.error is None else table.error,
            *(place.dataset, block.backbone, cell.missing or block.citation),
        ]

    return [
        row(block, line, column)
        for block in table.blocks
        for line in block.lines
        for column in range(len(table.columns))
    ]
