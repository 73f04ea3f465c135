"""Imports are restricted to those of the table in ARCHITECTURE.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import ROOT
from imports import between_units, circle, read_imports, unit

GRAPH = read_imports(ROOT / "streamfuse")


def table() -> dict[str, set[str]]:
    """Unit: the units that it may import; a unit in one row with others may not import those."""
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## Who may import what\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    allowed: dict[str, set[str]] = {}
    for units, others in rows:
        above = set(allowed)
        may = above if others == "everything" else set(re.findall(r"`(\w+)`", others))
        assert may <= above, f"{units} may import what stands below: {', '.join(sorted(may - above))}"
        allowed |= dict.fromkeys(re.findall(r"`(\w+)`", units), may)
    allowed["__main__"] = {"cli"}
    return allowed


def test_every_import_is_allowed() -> None:
    allowed = table()
    assert set(allowed) == {unit(module) for module in GRAPH}
    wrong = [line for (a, b), lines in between_units(GRAPH).items() if b not in allowed[a] for line in lines]
    assert wrong == []


def test_no_import_cycles() -> None:
    assert circle(GRAPH) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    files = {
        "__init__.py": '__version__ = "1"',
        "low.py": "import json",
        "deep/__init__.py": "",
        "deep/a.py": "from sample import __version__\nfrom sample.low import thing",
        "deep/b.py": "from sample.deep import a",
    }
    for name, text in files.items():
        file = tmp_path / "sample" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
    return tmp_path / "sample"


def test_imports_are_found_everywhere(package: Path) -> None:
    assert read_imports(package) == {
        "sample": set(),
        "sample.low": set(),
        "sample.deep": set(),
        "sample.deep.a": {"sample.low"},
        "sample.deep.b": {"sample.deep.a"},
    }
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sample.deep.b"
    (package / "low.py").write_text(f"{for_types}\ndef f():\n    from sample import x")
    graph = read_imports(package)
    assert graph["sample.low"] == {"sample.deep.b", "sample"}
    assert between_units(graph)["low", "deep"] == ["sample.low imports sample.deep.b"]
    assert sorted(circle(graph)) == ["sample.deep.a", "sample.deep.b", "sample.low"]
