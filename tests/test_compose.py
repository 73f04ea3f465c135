"""docker/compose.yaml: the command line would be accepted, its sources open, and its ports are on loopback only."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from commands import ROOT, parse

from streamfuse.sources import open_pair


@pytest.fixture
def services() -> dict[str, Any]:
    """The services, with the default of every ${VARIABLE:-default}."""
    text = (ROOT / "docker/compose.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))["services"]
    return found


def test_the_command_line_is_accepted(services: dict[str, Any]) -> None:
    assert parse(services["fuse"]["command"]) == ("run",)


def test_ports_are_on_loopback(services: dict[str, Any]) -> None:
    ports = [str(port) for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_sources_open(services: dict[str, Any]) -> None:
    command = services["fuse"]["command"]
    ir, vis = open_pair(command[command.index("--ir") + 1], command[command.index("--vis") + 1])
    with ir, vis:
        assert ir.live
        assert vis.live
        assert next(iter(ir)).luma.shape == next(iter(vis)).luma.shape
