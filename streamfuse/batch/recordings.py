"""The recordings of a batch, from a manifest, patterns or a tree of sequences."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfuse.errors import InputError, UsageError
from streamfuse.sources import images_exist
from streamfuse.sources.address import parse_address
from streamfuse.sources.bags.address import without_topic
from streamfuse.sources.bags.bag import is_bag
from streamfuse.sources.thermal.address import without_thermal
from streamfuse.sources.vot import find_sequences
from streamfuse.support.files import read_settings
from streamfuse.support.urls import expand, has_scheme, redact

KEYS = ("ir", "vis", "vot", "bag", "output", "calib", "ir-offset-ms")
"""Columns of a CSV manifest and keys of a TOML one."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording of both cameras and its output; every path is absolute."""

    output: Path
    ir: str = ""
    """A video, a directory or a pattern of images, or a topic of a bag; empty for a VOT sequence or a whole bag."""
    vis: str = ""
    """The same; empty where the images of `ir` hold both pictures, or lie beside the visible ones."""
    vot: str = ""
    """The directory of a VOT-RGBT sequence, else empty."""
    bag: str = ""
    """A bag whose topics are found, else empty."""
    calib: str = ""
    """Calibration file of this recording; empty: that of the batch."""
    ir_offset_ms: float | None = None
    """Offset of this recording; None: that of the batch."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(text for text in (self.vot, self.bag, self.ir, self.vis) if text)


def path_of(text: str) -> str:
    """Return the path in an input, without a topic and the options of a thermal camera; raises UsageError."""
    return without_topic(without_thermal(text))


@dataclass(frozen=True, slots=True)
class Unpaired:
    """An input without a partner."""

    path: str
    reason: str


def read_manifest(path: Path, outputs: Path, suffix: str) -> list[Recording]:
    """Read the recordings of a .csv or .toml file; inputs are relative to that file, outputs to `outputs`.

    An output that is not named has the name of the visible file, or of the sequence, and `suffix`.  Raises UsageError,
    with file and line, for a value that is not possible, and for two recordings with one output.
    """
    if path.suffix.lower() == ".csv":
        rows = _csv_rows(path)
    elif path.suffix.lower() == ".toml":
        rows = _toml_rows(path)
    else:
        raise UsageError(f"{path}: a manifest is a .csv or .toml file")
    return _distinct(_recording(row, where, path.parent, outputs, suffix) for where, row in rows)


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason}") from None
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
    try:
        _check_keys(reader.fieldnames or (), f"{path}:1")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row:
                raise UsageError(f"{where}: more values than the first line has names")
            yield where, {key: value.strip() for key, value in row.items() if value and value.strip()}
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None


def _toml_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    settings = read_settings(path)
    recordings = settings.values.get("recording")
    if other := [key for key in settings.values if key != "recording"]:
        raise UsageError(f"{settings.where(other[0])}: unknown key {other[0]!r}; a manifest is a list of [[recording]]")
    if not isinstance(recordings, list) or not all(isinstance(recording, dict) for recording in recordings):
        raise UsageError(f"{path}: a manifest is a list of [[recording]], each with ir and vis, or vot")
    for number, recording in enumerate(recordings, 1):
        where = f"{path}, recording {number}"
        _check_keys(recording, where)
        for key, value in recording.items():
            wanted = (int, float) if key == "ir-offset-ms" else str
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise UsageError(f"{where}: {key} must be {'text in quotes' if wanted is str else 'a number'}")
        yield where, recording


def _check_keys(keys: Iterable[str], where: str) -> None:
    if unknown := [key for key in keys if key not in KEYS]:
        raise UsageError(f"{where}: unknown {unknown[0]!r}; known are {', '.join(KEYS)}")


def _recording(row: Mapping[str, Any], where: str, base: Path, outputs: Path, suffix: str) -> Recording:
    ir, vis, vot, bag = (row.get(key, "") for key in ("ir", "vis", "vot", "bag"))
    if bool(ir or vis) + bool(vot) + bool(bag) != 1 or (vis and not ir):
        raise UsageError(f"{where}: give ir and vis, or vot, or bag")
    try:
        ir, vis, vot, bag = (text and _input_path(text, base) for text in (ir, vis, vot, bag))
        offset_ms = _offset(row.get("ir-offset-ms"))
        if ir and not vis and not images_exist(ir):
            raise UsageError(f"give ir and vis, or vot, or bag: {ir} alone is no image or directory that may hold both")
        named = Path(vot or bag or path_of(vis or ir))
        whole = vot or (not bag and not vis and named.is_dir())
        output = row.get("output") or (named.name if whole else named.stem) + suffix
        calib = row.get("calib", "")
        calib = calib and str(_absolute(calib, base))
        return Recording(_absolute(output, outputs), ir, vis, vot, bag, calib, offset_ms)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _offset(value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = float("nan")
    if not abs(number) <= 1e12:
        raise UsageError(f"ir-offset-ms must be a number of milliseconds, got {value!r}")
    return number


def _input_path(text: str, base: Path) -> str:
    text = expand(text)
    if has_scheme(text) or text.startswith("synthetic:") or parse_address(text) is not None:
        raise UsageError(
            f"{redact(text)} is not a recording: give a video file, a bag, or a directory or pattern of images"
        )
    return str(_absolute(text, base))


def _absolute(path: str | Path, base: Path = Path()) -> Path:
    """Make a path absolute, from `base`; ~ is the home directory, and ~NAME without such a user is left as it is."""
    if "\0" in str(path):
        raise UsageError(f"{path} holds a zero byte, which no name can have")
    return (base / os.path.expanduser(path)).absolute()  # noqa: PTH111 - Path.expanduser raises for nobody's


def _resolved(path: Path) -> Path:
    """Resolve links, unless they are circular."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def pair_patterns(ir: str, vis: str, outputs: Path, suffix: str) -> tuple[list[Recording], list[Unpaired]]:
    """Pair the files or directories that two patterns match, by the text that each * stands for.

    The second list has the inputs without a partner.

    `rec/*/ir.mp4` and `rec/*/vis.mp4` give rec/a/ir.mp4 and rec/a/vis.mp4, fused into a.mp4.  Raises UsageError for
    patterns with different numbers of *, InputError where nothing is paired.
    """
    found = [_match(pattern) for pattern in (ir, vis)]
    if ir.count("*") != vis.count("*") or "*" not in ir:
        raise UsageError(f"{ir} and {vis}: give two patterns with the same number of *")
    paths, others = found
    recordings = [
        Recording(_absolute(outputs / f"{'-'.join(key)}{suffix}"), paths[key], others[key])
        for key in sorted(paths.keys() & others.keys())
    ]
    unpaired = [
        Unpaired(path, f"no file of {partner} matches it")
        for own, other, partner in ((paths, others, vis), (others, paths, ir))
        for key, path in sorted(own.items())
        if key not in other
    ]
    if not recordings:
        raise InputError(
            f"no file of {ir} ({len(paths)} found) matches one of {vis} ({len(others)} found): "
            "the text for each * must be the same"
        )
    return _distinct(recordings), unpaired


def stored_recordings(pattern: str, outputs: Path, suffix: str) -> list[Recording]:
    """List the directories of images of thermal cameras that a pattern matches; raises UsageError where there are none.

    The images hold both pictures, or lie beside the visible ones.  `surveys/*` gives surveys/a, fused into a.mp4.
    """
    recordings = [
        Recording(_absolute(outputs / f"{'-'.join(key) or Path(path_of(text)).name}{suffix}"), ir=text)
        for key, text in sorted(_match(pattern).items())
        if images_exist(text)
    ]
    if not recordings:
        raise UsageError(f"--vis missing: {pattern} matches no directory of images, which may hold both pictures")
    return _distinct(recordings)


_WILD = {"*": "([^/]*)", "**/": "((?:.*/)?)"}


def bag_recordings(pattern: str, outputs: Path, suffix: str) -> list[Recording]:
    """List the bags that a pattern matches, or one that it names; raises UsageError where there are none.

    `rec/*.mcap` gives rec/a.mcap, fused into a.mp4.
    """
    found = _match(pattern)
    recordings = [
        Recording(_absolute(outputs / f"{'-'.join(key) or Path(path).stem}{suffix}"), bag=path)
        for key, path in sorted(found.items())
        if is_bag(Path(path))
    ]
    if not recordings:
        raise InputError(f"there is no bag {pattern}")
    return _distinct(recordings)


def _match(pattern: str) -> dict[tuple[str, ...], str]:
    """Map the text for each * to the path, with its topic and options; hidden files are left out, as by a shell."""
    pattern = _input_path(pattern, Path())
    rest = pattern.removeprefix(path_of(pattern))
    return {key: path + rest for key, path in _match_files(path_of(pattern)).items()}


def _match_files(pattern: str) -> dict[tuple[str, ...], str]:
    pieces = [(piece, _WILD.get(piece)) for piece in re.split(r"(\*\*/|\*)", pattern)]
    whole = re.compile("".join(wild or re.escape(piece) for piece, wild in pieces), re.DOTALL)
    names = "".join(piece if wild else glob.escape(piece) for piece, wild in pieces)
    found = {}
    for path in glob.iglob(names, recursive=True):  # noqa: PTH207 - an absolute pattern is fine
        if match := whole.fullmatch(path):
            found[tuple(group.strip("/").replace("/", "-") for group in match.groups())] = path
    return found


def sequence_recordings(tree: Path, outputs: Path, suffix: str) -> list[Recording]:
    """List every VOT-RGBT sequence in a directory or below it; raises UsageError where there are none."""
    tree = _absolute(tree)
    recordings = []
    for sequence in find_sequences(tree):
        name = sequence.relative_to(tree) if sequence != tree else Path(tree.name)
        recordings.append(Recording(_absolute(outputs / name.with_name(name.name + suffix)), vot=str(sequence)))
    return recordings


def _distinct(recordings: Iterable[Recording]) -> list[Recording]:
    """Raise UsageError where two recordings have one output, an output is an input, or there are no recordings."""
    listed = list(recordings)
    if not listed:
        raise UsageError("the manifest lists no recordings")
    by_output: dict[Path, Recording] = {}
    for recording in listed:
        other = by_output.setdefault(_resolved(recording.output), recording)
        if other is not recording:
            raise UsageError(
                f"{recording.inputs[-1]} and {other.inputs[-1]} would both become {recording.output}: name outputs"
            )
    for recording in listed:
        for text in recording.inputs:
            if _resolved(Path(path_of(text))) in by_output:
                raise UsageError(f"the output {text} would overwrite an input: choose another directory with -o")
    return listed
