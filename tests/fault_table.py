"""Results of the fault tests as a table: the fault, how often it was tested, what was lost, and the recovery time.

`pytest tests/faults --fault-table docs/faults.md` writes it between two markers of that page, and as JSON beside it.
Rows are identified by their fault, so that the long tests, which run separately (`-m soak`), update the same table.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
_HEAD = "| fault | times | lost | recovered in | promised |\n|---|---|---|---|---|\n"


@dataclass(frozen=True, slots=True)
class Row:
    fault: str
    times: int
    lost: str
    recovered_in: str
    """The recovery time, or a text if there is nothing to recover."""
    promised: str
    machine: str = ""
    day: str = ""

    def markdown(self) -> str:
        cells = (self.fault, f"{self.times:,}", self.lost, self.recovered_in, self.promised)
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |\n"


class FaultTable:
    """The rows of one test session."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"

    def add(self, fault: str, *, times: int, lost: str, promised: str, recovered_s: list[float] | None = None) -> None:
        """Add a row.  `lost`: the worst case; `recovered_s`: all recovery times, s, or None if nothing recovers."""
        within = "-" if not recovered_s else f"{max(recovered_s):.2f} s at most"
        self._rows[fault] = Row(fault, times, lost, within, promised, self._machine, date.today().isoformat())

    def write(self, page: Path) -> None:
        """Update the page and the JSON beside it; rows of other sessions stay.  Without rows nothing is written."""
        if not self._rows:
            return
        data = page.with_suffix(".json")
        before = json.loads(data.read_text()) if data.exists() else []
        rows = {row["fault"]: Row(**row) for row in before} | self._rows
        ordered = sorted(rows.values(), key=lambda row: row.fault)
        data.write_text(json.dumps([asdict(row) for row in ordered], indent=1) + "\n")
        table = _HEAD + "".join(row.markdown() for row in ordered)
        made = sorted({f"{row.day} on {row.machine}" for row in ordered})
        text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
        head, _, rest = text.partition(BEGIN)
        tail = rest.partition(END)[2]
        page.write_text(f"{head}{BEGIN}\n{table}\nMeasured {'; '.join(made)}.\n{END}{tail}")
