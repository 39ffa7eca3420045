"""Write and read history.csv, which has one row per epoch."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.files import write_text

History = list[dict[str, Any]]  # one row per epoch, as the trainer keeps it
Row = Mapping[str, float]
HISTORY_COLUMNS = (  # written by every training, in addition to the scores
    *("epoch", "step", "steps", "lr", "loss", "seconds", "data_wait_s", "images_per_s"),
    *("peak_memory_mib", "warm_up", "reference_s", "validation_s"),
)
SCORE_PREFIXES = ("train_", "select_")
TRUTH_VALUES = {"True": 1.0, "False": 0.0}


def write_history(file: Path, history: History) -> None:
    """Write one row per epoch; a value that a row lacks is an empty cell."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(file, text.getvalue(), sync=False)


def read_history(file: Path) -> Sequence[Row]:
    """Read the rows of a training, one per epoch in ascending order.

    Returns:
        The columns of each epoch as numbers. Empty cells and infinities are NaN. Columns that an
        older version did not write are missing; columns that this version does not know are left
        out. Empty if there is no file.

    Raises:
        UserError: if the file cannot be read or is damaged.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror or error}.") from error
    except (ValueError, csv.Error) as error:
        raise _damaged(file, f"it is not CSV in UTF-8 ({error})") from error
    columns, *lines = [line for line in lines if line] or [[]]
    if "epoch" not in columns:
        raise _damaged(file, "it has no column epoch")
    if not lines:
        raise _damaged(file, "it has no rows")
    rows: list[Row] = []
    for number, cells in enumerate(lines, start=1):
        if len(cells) != len(columns):
            raise _damaged(file, f"row {number} has {len(cells)} cells, not {len(columns)}")
        row = {
            name: _number(cell, f"row {number}, column {name}", file)
            for name, cell in zip(columns, cells, strict=True)
            if name in HISTORY_COLUMNS or name.startswith(SCORE_PREFIXES)
        }
        before, given = rows[-1]["epoch"] if rows else 0.0, cells[columns.index("epoch")][:20]
        if not (given.isascii() and given.isdecimal() and row["epoch"] > before):
            what = f"row {number} has epoch {given!r}; epochs are whole numbers from 1, ascending"
            raise _damaged(file, what)
        rows.append(row)
    return rows


def _number(cell: str, place: str, file: Path) -> float:
    try:
        value = TRUTH_VALUES[cell] if cell in TRUTH_VALUES else float(cell or math.nan)
    except ValueError as error:
        raise _damaged(file, f"{place} has {cell[:20]!r}, which is not a number") from error
    return value if math.isfinite(value) else math.nan


def _damaged(file: Path, what: str) -> UserError:
    return UserError(
        f"{file} is damaged: {what}. Restore the file that the training wrote, or remove it to "
        "report without its curves and times."
    )
