"""UCI's Online Retail II from its workbook, a sheet a year, to one Parquet file.

Chen, D. (2012): Online Retail II. UCI Machine Learning Repository, CC BY 4.0. All transactions of a United Kingdom shop
of gifts from 2009-12-01 to 2011-12-09. The sheets overlap by the first days of December 2010; the rows stay as they
are, as the merge of a log knows an event by user, item and time and takes it once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.errors import RecsysError, first_line

# the sheets' columns, and what they are called and hold in the Parquet file
COLUMNS: Final[dict[str, tuple[str, Any]]] = {
    "Invoice": ("invoice", pl.String),
    "StockCode": ("item", pl.String),
    "Description": ("description", pl.String),
    "Quantity": ("quantity", pl.Int64),
    "InvoiceDate": ("time", pl.Datetime("us")),
    "Price": ("price", pl.Float64),
    "Customer ID": ("customer", pl.Int64),
    "Country": ("country", pl.String),
}
_TEXT: Final = [name for name, (_, dtype) in COLUMNS.items() if dtype == pl.String]


def to_parquet(workbook: Path, target: Path) -> None:
    """Write the rows of all sheets, in their order, as one Parquet file.

    Raises
    ------
    RecsysError
        The reader of workbooks is not installed, the file is no workbook, or a sheet lacks a column.
    """
    try:
        # a code such as 85048 is a number to a workbook and text to the shop
        text = dict.fromkeys(_TEXT, pl.String)
        sheets = pl.read_excel(workbook, sheet_id=0, engine="calamine", schema_overrides=text)
    except ModuleNotFoundError:
        raise RecsysError(
            "Workbooks need the package fastexcel; install it with `pip install fastexcel` and run this again."
        ) from None
    except KeyError as error:
        raise RecsysError(f"A sheet has no column {error}: the original has been published anew.") from None
    except Exception as error:  # the reader's own, of a module that need not be there
        raise RecsysError(f"The original cannot be read as a workbook: {first_line(error)}.") from None
    for name, sheet in sheets.items():
        lacking = [column for column in COLUMNS if column not in sheet.columns]
        if lacking:
            raise RecsysError(f"The sheet {name!r} has no column {lacking[0]!r}: the original has been published anew.")
    columns = [pl.col(theirs).cast(dtype).alias(ours) for theirs, (ours, dtype) in COLUMNS.items()]
    pl.concat([sheet.select(columns) for sheet in sheets.values()]).write_parquet(target, compression="zstd")
