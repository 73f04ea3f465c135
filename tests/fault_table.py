"""What the fault tests found, as a table: the fault, how often, what was lost, and how soon all was well again.

`pytest tests/faults --fault-table docs/faults.md` writes it between two marks of that page, and as JSON beside it.
Rows are kept by their fault, so that the long tests, which run apart (`-m soak`), take their places in the same table.
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
    """Or that there is nothing to come back from."""
    promised: str
    machine: str = ""
    day: str = ""

    def markdown(self) -> str:
        cells = (self.fault, f"{self.times:,}", self.lost, self.recovered_in, self.promised)
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |\n"


class FaultTable:
    """Rows of one session."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"

    def add(self, fault: str, *, times: int, lost: str, promised: str, recovered_s: list[float] | None = None) -> None:
        """`lost`: the worst of all times; `recovered_s`: of each time, s, or None where nothing has to come back."""
        within = "-" if not recovered_s else f"{max(recovered_s):.2f} s at most"
        self._rows[fault] = Row(fault, times, lost, within, promised, self._machine, date.today().isoformat())

    def write(self, page: Path) -> None:
        """Into the page and the JSON beside it, where rows of other sessions stay; nothing if there are no rows."""
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
