"""scripts/audit: a missing answer of the index is not a clean report, and vulnerabilities with a fix fail."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "audit"


@pytest.fixture(scope="module")
def audit() -> Any:
    loader = SourceFileLoader("audit_script", str(SCRIPT))
    spec = spec_from_loader("audit_script", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def package(name: str, *fixes: list[str]) -> dict[str, Any]:
    vulns = [{"id": f"PYSEC-{k}", "fix_versions": fix, "description": ""} for k, fix in enumerate(fixes)]
    return {"name": name, "version": "1.0", "vulns": vulns}


SKIPPED = {"name": "torch", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([package("a"), package("b")], 0, "2 packages, 0 known"),
        ([package("a", ["1.1", "2.0"])], 1, "a 1.0: PYSEC-0: update to 1.1, 2.0"),
        ([package("a", [])], 0, "a 1.0: PYSEC-0: no fix yet"),
        ([package("a"), SKIPPED], 0, "not audited: torch"),
        ([SKIPPED, SKIPPED], 0, "NOT DONE"),
    ],
)
def test_reports(audit: Any, packages: list[dict[str, Any]], code: int, words: str) -> None:
    found, lines = audit.judge({"dependencies": packages, "fixes": []})
    assert found == code
    assert words in "\n".join(lines)


def test_without_packages(audit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([str(tmp_path / "gone")]) == 2
    assert "name their directory" in capsys.readouterr().out
