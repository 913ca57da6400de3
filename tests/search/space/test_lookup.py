import gzip
import os
from pathlib import Path

import pytest

from dots_zoo.genotype import load_genotype
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.nasbench201_table import look_up

TABLE = Path(os.environ.get("DOTS_ZOO_DATA", "../shared/data")) / "nasbench201/nasbench201.csv.gz"
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
TEXT = f"index,arch,c10_test,note\n0,|other|,1.0,a\n7,{CELL},93.25,b\n"


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_the_row_of_a_cell_is_found_and_its_numbers_are_read(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith("gz") else TEXT.encode())
    assert look_up(path, load_genotype(CELL)) == {"index": 7.0, "c10_test": 93.25}


@pytest.mark.parametrize(
    ("content", "cell", "message"),
    [
        (TEXT.encode(), CELL.replace("none~0", "skip_connect~0"), r"expected a row for .*, got none among 2"),
        (TEXT.encode(), "dots_cifar10", "expected a cell of NAS-Bench-201 to look up, got 'dots_cifar10'"),
        (b"a,b\n1,2\n", CELL, "expected a table with a column 'arch'"),
        (b"", CELL, "expected a table with a column 'arch'"),
        (b"\xff\xfe", CELL, "expected a table of NAS-Bench-201, as CSV"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(content, cell, message, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DotsZooError, match=message):
        look_up(path, load_genotype(cell))


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(TEXT.encode(), mtime=0)[:40]])
def test_a_torn_table_is_refused(content, tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DotsZooError, match="expected a table of NAS-Bench-201"):
        look_up(path, load_genotype(CELL))


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DotsZooError, match=r"table.csv: expected a table .*No such file"):
        look_up(tmp_path / "table.csv", load_genotype(CELL))


@pytest.mark.skipif(not TABLE.exists(), reason="the table of NAS-Bench-201 is not there")
def test_the_cell_of_darts_is_where_the_paper_of_darts_minus_says():
    skips = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
    found = look_up(TABLE, load_genotype(skips))
    assert (found["c10_valid"], found["c10_test"]) == pytest.approx((39.77, 54.30), abs=0.005)
