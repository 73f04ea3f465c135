"""Run every command of README.md and the other pages.

A stage (`tests/stage.py`) provides the files, cameras and servers that they name.  Commands that cannot run as written
are listed in the tables below, with the reason.  Entries that match no command fail.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from commands import PAGES, ROOT, Block, all_blocks, blocks, walk
from publishing import publishing
from stage import Stage, staged
from streams import free_port

ADDRESS = r"(tcp://|http://|(?<= ))(?:127\.0\.0\.1|0\.0\.0\.0|HOST):(5556|8080|8786|8787|9100)\b"
"""Addresses that are replaced by a free port of loopback, the same within a block."""
MEDIA_SERVER = "rtsp://server/fused"
"""Address that is replaced by a media server on loopback."""
REPLACEMENTS = [
    # command in the pages, command that is run instead, reason
    (r"--device cuda:\d", "--device cpu", "no GPU"),
    (r" &$", "", "run to its end before the next one, so that its exit code is seen"),
    (r"^docker build -f (\S+) .*", r"test -f \1", "no engine that builds images"),
    (r"^docker compose -f (\S+) .*", r"test -f \1", "the same"),
    (r"^docker run .* streamfuse(:cuda)? (run .*)", r"streamfuse \2", "no engine that runs images"),
    (r"^scripts/docs$", "bash -n scripts/docs", "installs; tests/test_api_docs.py builds the pages"),
    (r"^scripts/fuzz .*", "bash -n scripts/fuzz", "installs; tests/fuzz/test_fuzz_targets.py runs the targets"),
    (
        r"^(PYTHON=\S+ )?scripts/gpu-check.*",
        "bash -n scripts/gpu-check",
        "a GPU; tests/test_gpu_check.py runs its steps",
    ),
    (r"^scripts/check$", "bash -n scripts/check", "takes minutes; CI runs it"),
    (
        r"^torchrun .* -m (streamfuse .*)",
        rf"python {ROOT}/tests/parse.py \1",
        "tests/test_training.py runs two processes",
    ),
    (r" --scheduler tcp://\S+$", "", "a cluster on this machine; docs/batch.md starts a scheduler"),
    (r"^pytest tests/faults.*", rf"cd {ROOT} && pytest --help | grep -e --fault-table -e --soak-minutes", "hours"),
    (
        r"(streamfuse calibrate check .*)",
        rf"python {ROOT}/tests/parse.py \1",
        "the stage's calibrations are of other cameras; tests/test_calibration_check.py runs it",
    ),
    (r"--recipe published ", "--recipe small.toml ", "crops of 256 pixels take 20 seconds a step"),
    (
        r"(streamfuse .* --precision int8.*)",
        rf"python {ROOT}/tests/parse.py \1",
        "minutes; tests/test_int8.py does both",
    ),
    (
        r"(streamfuse bench --sweep.*)",
        rf"python {ROOT}/tests/parse.py \1",
        "minutes; tests/test_sweep.py measures some",
    ),
    (r"(streamfuse train .* weights/recipes/.*)", rf"python {ROOT}/tests/parse.py \1", "hours"),
]
SETTINGS = {
    # environment variable: its value and the reason
    "STREAMFUSE_RUN_FRAMES": ("6", "a live run has no end"),
    "BROWSER": ("true", "a run without an output opens one"),
    "STREAMFUSE_RUN_FORCE": ("1", "many commands write fused.mp4"),
    "STREAMFUSE_FUSE_FORCE": ("1", "the same"),
    "STREAMFUSE_CALIBRATE_SCENE_FORCE": ("1", "many commands write calib.toml"),
    "STREAMFUSE_CALIBRATE_BOARD_FORCE": ("1", "the same"),
    "STREAMFUSE_CALIBRATE_POINTS_FORCE": ("1", "the same"),
    "STREAMFUSE_CALIBRATE_IMPORT_FORCE": ("1", "the same"),
    "STREAMFUSE_CALIBRATE_CHECK_FORCE": ("1", "the same, for the check picture"),
    "STREAMFUSE_EVALUATE_FORCE": ("1", "several commands write report/"),
    "STREAMFUSE_SUBSCRIBE_FRAMES": ("3", "a subscriber has no end"),
    "STREAMFUSE_DEMO_SECONDS": ("0.2", "a second of the scene takes a second to draw"),
    "STREAMFUSE_DEMO_SIZE": ("64x48", "the same"),
    "STREAMFUSE_BENCH_FRAMES": ("2", "the figures are not used"),
    "STREAMFUSE_DOCTOR_QUICK": ("1", "half a minute; tests/test_doctor.py runs the rest"),
    "STREAMFUSE_BENCH_SIZE": ("64x48", "the same"),
    "STREAMFUSE_TRAIN_AUTOENCODER_STEPS": ("1", "thousands of steps take hours"),
    "STREAMFUSE_TRAIN_AUTOENCODER_BATCH": ("1", "the same"),
    "STREAMFUSE_TRAIN_AUTOENCODER_RECIPE": ("small.toml", "crops of 64 pixels"),
    "STREAMFUSE_TRAIN_FUSION_RECIPE": ("small.toml", "the same"),
    "STREAMFUSE_TRAIN_DISTILL_STEPS": ("1", "the same"),
    "STREAMFUSE_TRAIN_DISTILL_BATCH": ("1", "the same"),
    "STREAMFUSE_TRAIN_FUSION_STEPS": ("1", "the same"),
    "STREAMFUSE_TRAIN_FUSION_BATCH": ("2", "the same; two processes need two"),
    "PIP_DRY_RUN": ("1", "the environment stays as it is"),
    "PIP_NO_DEPS": ("1", "no network"),
    "PIP_NO_BUILD_ISOLATION": ("0", "no network; pip reads this 0 as the flag being given"),
}
SERVERS = r"--(publish|preview|metrics) "
"""Commands that run while the rest of their block runs, if it has one of the clients; Ctrl-C ends them."""
CLIENTS = r"^(streamfuse (subscribe|top) |python examples/|curl )"
ENDLESS = r"^python examples/"
"""Clients that are stopped after three lines of output."""
WITHIN_S = 60.0


@dataclass
class Runner:
    stage: Stage
    ports: dict[str, int] = field(default_factory=dict)
    """Ports used in the block, by the port in the page."""
    done: set[str] = field(default_factory=set)
    """Commands that were run already; each is run once."""

    def form(self, command: str) -> str:
        """Return the command to run for a command of a page."""

        def address(match: re.Match[str]) -> str:
            return f"{match[1]}127.0.0.1:{self._port(match[2])}"

        command = re.sub(ADDRESS, address, command)
        command = command.replace(MEDIA_SERVER, f"rtsp://127.0.0.1:{self.stage.fused_port}/fused")
        for pattern, replacement, _ in REPLACEMENTS:
            command = re.sub(pattern, replacement, command)
        return command

    def start(self, command: str, said: IO[str] | int = subprocess.PIPE, *, ends: bool = True) -> subprocess.Popen[str]:
        pace = {name: value for name, (value, _) in SETTINGS.items() if ends or name != "STREAMFUSE_RUN_FRAMES"}
        return subprocess.Popen(
            ["bash", "-c", self.form(command)],
            cwd=self.stage.directory,
            env={**self.stage.environment, **pace},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        with self.start(command) as process:
            said, _ = process.communicate(timeout=200)
        return process.returncode, said

    def run_block(self, block: Block) -> None:
        self.ports.clear()
        with ExitStack() as stack:
            for place, command in enumerate(block.commands):
                rest = block.commands[place + 1 :]
                try:
                    if re.search(SERVERS, command) and any(re.search(CLIENTS, later) for later in rest):
                        stack.enter_context(self._serving(command))
                    elif re.search(ENDLESS, command):
                        self._listen(command)
                    elif re.search(CLIENTS, command):
                        self._ask(command)
                    elif command not in self.done:
                        code, said = self.run(command)
                        assert code == 0, f"exit code {code}:\n{said}"
                        self.done.add(command)
                except AssertionError as error:
                    raise AssertionError(f"{block}: {command}\n{error}") from None

    def run_script(self, block: Block) -> None:
        """Run a block as one script with background jobs."""
        self.ports.clear()
        text = re.sub(r"--port (\d+)", lambda match: f"--port {self._port(match[1])}", block.text)
        said = self.stage.directory / "said.txt"  # no pipe: a leftover process would keep it open
        with said.open("w") as file, self.start(text, file) as process:
            try:
                code = process.wait(300)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        assert code == 0, f"{block}: exit code {code}:\n{said.read_text()}"

    def _port(self, shown: str) -> int:
        return self.ports.setdefault(shown, free_port())

    @contextmanager
    def _serving(self, command: str) -> Iterator[None]:
        with self.start(command, ends=False) as process:
            try:
                yield
                assert process.poll() is None, process.communicate()[0]
                process.send_signal(signal.SIGINT)
                said, _ = process.communicate(timeout=60)
                assert process.returncode == 0, said
            finally:
                process.kill()

    def _listen(self, command: str) -> None:
        with self.start(command) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            process.kill()
        assert all(lines), lines
        assert "Error" not in "".join(lines)

    def _ask(self, command: str) -> None:
        """Repeat a request until it is answered, because the server may still be starting."""
        end = time.monotonic() + WITHIN_S
        while (answer := self.run(command))[0] != 0:
            assert answer[0] != 2, answer[1]  # a usage error: retrying does not help
            assert time.monotonic() < end, answer[1]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield Runner(stage)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_runs(page: Path, runner: Runner) -> None:
    for block in blocks(page):
        if block.language == "sh":
            runner.run_block(block)
        elif block.language == "bash":
            runner.run_script(block)


def test_every_block_has_a_language() -> None:
    """A block without a language would be skipped."""
    known = {"sh", "bash", "csv", "python", "toml", "diff", "mermaid", "text"}
    assert [str(block) for page in PAGES for block in blocks(page) if block.language not in known] == []
    assert [block.page.name for block in all_blocks("text")] == ["CONTRIBUTING.md"]  # run by tests/test_contributing.py


def test_table_entries_match_the_pages() -> None:
    """Every replacement matches a command, and every setting is an option."""
    commands = [command for block in all_blocks("sh", "bash") for command in block.commands]
    for pattern in (ADDRESS, re.escape(MEDIA_SERVER), SERVERS, CLIENTS, ENDLESS, *(row[0] for row in REPLACEMENTS)):
        assert any(re.search(pattern, command) for command in commands), f"no command has {pattern}"
    known = {
        f"STREAMFUSE_{'_'.join(path)}_{name[2:]}".replace("-", "_").upper()
        for path, command in walk()
        for option in command.params
        for name in option.opts
    }
    assert {name for name in SETTINGS if name.startswith("STREAMFUSE_")} <= known


def test_links_resolve() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            file, _, heading = target.partition("#")
            found = (page.parent / file) if file else page
            assert "://" not in target, f"{page.name}: {target} cannot be checked"
            assert found.exists(), f"{page.name}: there is no {target}"
            if heading:
                headings = re.findall(r"^#+ (.*)$", found.read_text(), re.M)
                assert heading in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, target


PRELUDE = """
import itertools, sys, streamfuse
calls = itertools.count(1)
def show(*shown):
    print("shown", len(shown), flush=True)
    if next(calls) == 3:
        sys.exit()
"""


def snippets() -> list[Block]:
    """The snippets except the files of CONTRIBUTING.md, which tests/test_contributing.py runs."""
    return [block for block in all_blocks("python") if not block.text.startswith('"""')]


@pytest.mark.parametrize("block", snippets(), ids=str)
def test_python_snippets_run(block: Block, runner: Runner) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    program = PRELUDE + block.text.replace("tcp://127.0.0.1:5556", address)
    with publishing(address, encoding="bgr8"):
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=runner.stage.directory,
            env=runner.stage.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]  # from show, or for a program without end
            process.kill()
    assert all(lines), lines
    assert "Traceback" not in "".join(lines)


def test_toml_snippets_are_valid(tmp_path: Path, runner: Runner) -> None:
    """A file of options or of a recipe."""
    from streamfuse.batch.recordings import read_manifest
    from streamfuse.training.recipe import RECIPES, read_recipe

    file = tmp_path / "piece.toml"
    kinds = set()
    for block in all_blocks("toml"):
        file.write_text(block.text)
        if "recording" in tomllib.loads(block.text):
            kinds.add("manifest")
            assert read_manifest(file, tmp_path, ".mp4")
        elif "base" in tomllib.loads(block.text):
            kinds.add("recipe")
            assert read_recipe(str(file), RECIPES).steps == 5000
        else:
            kinds.add("options")
            command = ["env", "STREAMFUSE_RECORDINGS=/r", sys.executable, "-m", "streamfuse", "run"]
            done = subprocess.run(
                [*command, "--config", file, "--print-config"],
                env=runner.stage.environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert "front-ir.mkv" in done.stdout
    assert kinds == {"manifest", "options", "recipe"}
