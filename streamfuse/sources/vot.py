"""VOT-RGBT sequences: one directory with a colour and an infrared channel.

VOT-RGBT2020 and later have a `sequence` file (key=value lines) with `channels.color`, `channels.ir`, `fps`
and `length`.  VOT-RGBT2019, RGBT234 and their relatives have none and are known by their directories.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from streamfuse.errors import InputError
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.sequence import ImageSequence, match_pattern, open_image_pair

VOT_FPS = 30.0
"""Frame rate of a sequence that does not give one."""

# (infrared, visible) directories: VOT-RGBT2019; RGBT234, LasHeR; VTUAV; GTOT.
LAYOUTS = (("ir", "color"), ("infrared", "visible"), ("ir", "rgb"), ("i", "v"))


def open_vot(
    directory: Path, options: SourceOptions = DEFAULT, *, fps: float | None = None
) -> tuple[ImageSequence, ImageSequence]:
    """Open the infrared and the visible channel of a sequence; a frame rate that is given replaces the sequence's.

    Raises InputError, which names what is missing.
    """
    try:
        return _open(directory, options.with_fps(fps))
    except OSError as error:
        raise InputError(f"{error.filename or directory} cannot be read: {error.strerror}") from None


def _open(directory: Path, options: SourceOptions) -> tuple[ImageSequence, ImageSequence]:
    if not directory.is_dir():
        raise InputError(f"there is no directory {directory}")
    description = directory / "sequence"
    if description.is_file():
        return _open_described(description, options)
    for ir, vis in LAYOUTS:
        if (directory / ir).is_dir() and (directory / vis).is_dir():
            options = options.with_fps(options.fps or VOT_FPS)
            return open_image_pair(str(directory / ir), str(directory / vis), options)
    inside = sorted(child.parent.name for child in directory.glob("*/sequence"))
    if inside:
        raise InputError(f"{directory} holds several sequences: name one of them, such as {directory / inside[0]}")
    layouts = ", ".join(f"{ir}/ and {vis}/" for ir, vis in LAYOUTS)
    raise InputError(f"{directory} is no VOT-RGBT sequence: it has neither a `sequence` file nor {layouts}")


def find_sequences(tree: Path) -> list[Path]:
    """List the sequences in a directory and below it, ordered by name; a sequence itself is not searched.

    Raises InputError where there are none.
    """
    if not tree.is_dir():
        raise InputError(f"there is no directory {tree}")
    found = []
    for root, directories, files in os.walk(tree):
        held = set(directories)
        if "sequence" in files or any({ir, vis} <= held for ir, vis in LAYOUTS):
            found.append(Path(root))
            directories.clear()
    if not found:
        raise InputError(f"{tree} holds no VOT-RGBT sequences")
    return sorted(found)


def read_description(path: Path) -> dict[str, str]:
    """Read the key=value lines of a `sequence` file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as text") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise InputError(f"{path}, line {number}: expected key=value, found {line[:40]!r}")
        values[key.strip()] = value.strip()
    return values


MAX_BYTES = 1 << 26
"""Largest annotation file that is read, bytes: a million lines of four corners."""


def annotation_files(directory: Path) -> dict[str, Path]:
    """List the files of a sequence that have a line for each frame, by the names that VOT has for them.

    These are ground truth, tags and values.  RGBT234 and LasHeR have the ground truth of the visible frames in
    visible.txt.
    """
    found = {
        path.name: path
        for pattern in ("groundtruth*.txt", "*.tag", "*.value")
        for path in sorted(directory.glob(pattern))
        if path.is_file()
    }
    visible = directory / "visible.txt"
    if not any(name.startswith("groundtruth") for name in found) and visible.is_file():
        found["groundtruth.txt"] = visible
    return found


def read_annotation(path: Path) -> list[str]:
    """Read the lines of a file that `annotation_files` lists; raises InputError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size >> 20} MiB: an annotation has at most {MAX_BYTES >> 20}")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text: an annotation has a line for each frame") from None


def _number(path: Path, values: dict[str, str], key: str) -> float | None:
    if key not in values:
        return None
    try:
        number = float(values[key])
    except ValueError:
        number = math.nan
    if not 0.001 <= number <= 1e9:
        raise InputError(f"{path}: {key} must be a number above 0, found {values[key][:40]!r}")
    return number


def _open_described(path: Path, options: SourceOptions) -> tuple[ImageSequence, ImageSequence]:
    values = read_description(path)
    rate = options.fps or _number(path, values, "fps") or VOT_FPS
    length = _number(path, values, "length")
    channels = []
    for key in ("channels.ir", "channels.color"):
        if key not in values:
            raise InputError(f"{path} has no {key}: both an infrared and a colour channel are needed")
        channels.append(match_pattern(path.parent / values[key]))
    # Numbers start at 1, in some sequences at 0 or, cut from a longer one, past its length.  Both channels count alike.
    first = min((number for channel in channels for _, number in channel), default=1)
    if length is None or first < length:
        first = min(first, 1)
    sources = []
    for key, channel in zip(("channels.ir", "channels.color"), channels, strict=True):
        if length is not None:
            channel = [(file, number) for file, number in channel if number - first < length]
        images = [(file, round((number - first) * 1e9 / rate)) for file, number in channel]
        missing = int(length) - len(images) if length is not None else 0
        name = str(path.parent / values[key])
        sources.append(ImageSequence(name, images, round(1e9 / rate), options, missing=missing))
    return sources[0], sources[1]
