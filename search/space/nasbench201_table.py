"""Measurements of NAS-Bench-201 cells, looked up in a table.

Source: NAS-Bench-201 (ICLR 2020); DARTS- (ICLR 2021), Table 3. The table is CSV, gzip-compressed where its
name ends in .gz, with a column `arch` of architecture strings; every other column that holds numbers is read.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path

from dots_zoo.genotype import Genotype, to_text
from dots_zoo.runtime.errors import DotsZooError


def look_up(table: Path, genotype: Genotype) -> dict[str, float]:
    """Return the measurements in a cell's row of a table, by column.

    Raises:
        DotsZooError: if the table cannot be read or lacks the cell.
    """
    return find(read_table(table), genotype, table)


def read_table(table: Path) -> dict[str, Mapping[str, str]]:
    """Return architecture string -> row of a table.

    Raises:
        DotsZooError: if there is no such table.
    """
    try:
        packed = table.read_bytes()
        text = (gzip.decompress(packed) if table.suffix == ".gz" else packed).decode()
        rows = list(csv.DictReader(io.StringIO(text)))
    except (OSError, EOFError, UnicodeError, csv.Error, zlib.error) as error:
        raise DotsZooError(f"{table}: expected a table of NAS-Bench-201, as CSV: {error}") from error
    if not rows or "arch" not in rows[0]:
        raise DotsZooError(f"{table}: expected a table with a column 'arch' and a row for every architecture")
    return {row["arch"]: row for row in rows}


def find(rows: Mapping[str, Mapping[str, str]], genotype: Genotype, table: Path) -> dict[str, float]:
    """Return the measurements in a cell's row, by column.

    Raises:
        DotsZooError: if there is no such row.
    """
    if genotype.space != "nasbench201":
        raise DotsZooError(
            f"{table}: expected a cell of NAS-Bench-201 to look up, got {genotype.name!r} of the space "
            f"{genotype.space}"
        )
    name = to_text(genotype)
    if name not in rows:
        raise DotsZooError(f"{table}: expected a row for {name}, got none among {len(rows)}")
    measurements = {}
    for column, value in rows[name].items():
        try:
            measurements[column] = float(value)
        except (TypeError, ValueError):
            continue
    return measurements
