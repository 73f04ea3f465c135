"""What can be known of the images without an engine that builds them: the files are read, nothing is built."""

from __future__ import annotations

import io
import re
import shlex
import tomllib
from typing import Any

import pytest
import yaml
from commands import ROOT, parse
from dockerfile_parse import DockerfileParser

FILES = ["docker/Dockerfile", "docker/Dockerfile.cuda"]


def instructions(name: str) -> list[tuple[str, str]]:
    file: Any = io.BytesIO((ROOT / name).read_bytes())  # its stubs say text, it wants bytes
    parser = DockerfileParser(fileobj=file)
    return [(one["instruction"], one["value"]) for one in parser.structure if one["instruction"] != "COMMENT"]


@pytest.mark.parametrize("name", FILES)
def test_image(name: str) -> None:
    """Its last stage runs our program, as nobody in particular, and says how it is."""
    every = instructions(name)
    starts = [place for place, (word, _) in enumerate(every) if word == "FROM"]
    last = dict(every[starts[-1] :])
    assert every[starts[0]][1] == "python:3.11-slim AS build"
    assert len(starts) == 2
    assert re.fullmatch(r"[1-9]\d+", last["USER"])
    assert "/readyz" in last["HEALTHCHECK"]
    assert last["ENTRYPOINT"] == '["streamfuse"]'
    assert last["STOPSIGNAL"] == "SIGINT"
    environment = dict(part.split("=", 1) for part in shlex.split(last["ENV"]))
    assert environment["STREAMFUSE_RUN_METRICS"] in last["HEALTHCHECK"]
    assert parse(["run", "--metrics", environment["STREAMFUSE_RUN_METRICS"]]) == ("run",)


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied: set[str] = set()
    for word, value in instructions(name):
        if word == "COPY" and not value.startswith("--from"):
            copied |= set(value.split()[:-1])
    assert copied == kept
    assert all((ROOT / file).exists() for file in copied)
    # What the build of the wheel reads.
    assert {"pyproject.toml", "README.md", "LICENSE", "streamfuse", "weights"} <= copied


def test_arguments_are_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (argument,) = [value for word, value in instructions(FILES[1]) if word == "ARG"]
    assert argument.partition("=")[2] in extras


def composed() -> dict[str, Any]:
    text = (ROOT / "docker/compose.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return found


def test_compose() -> None:
    """Our service is built from our file, its command line would be taken, and nothing is open to the network."""
    found = composed()
    services = found["services"]
    assert set(services) == {"mediamtx", "fuse"}
    fuse = services["fuse"]
    place = ROOT / "docker" / fuse["build"]["context"]
    assert (place / fuse["build"]["dockerfile"]).resolve() == ROOT / FILES[0]
    assert set(fuse["depends_on"]) <= set(services)
    assert parse(fuse["command"]) == ("run",)
    target = fuse["command"][fuse["command"].index("--output") + 1]
    assert target.startswith("rtsp://mediamtx:8554/")
    for service in services.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in found["volumes"]


def test_the_sources_of_compose_open() -> None:
    from streamfuse.sources import open_pair

    command = composed()["services"]["fuse"]["command"]
    ir, vis = open_pair(command[command.index("--ir") + 1], command[command.index("--vis") + 1])
    with ir, vis:
        assert ir.live
        assert vis.live
        assert next(iter(ir)).luma.shape == next(iter(vis)).luma.shape
