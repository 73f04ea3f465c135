"""Parsing of other programs' calibration files: OpenCV (YAML and XML), ROS camera_info, Kalibr camchains.

Such files are untrusted: YAML is read with PyYAML's safe loader only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import yaml

from streamfuse.errors import InputError

MAX_BYTES = 1 << 20
"""Size limit of a file; calibrations have a few kilobytes."""

Values = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads OpenCV's matrices as plain maps and rejects aliases.

    A few lines of nested aliases can expand to more than fits in memory, and no calibration uses them.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not supported")
        return super().compose_node(parent, index)


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.YAMLError("a matrix must be a map")
    return loader.construct_mapping(node, deep=True)


for _tag in ("opencv-matrix", "opencv-nd-matrix"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _opencv_matrix)


def read_values(path: Path) -> Values:
    """Read the top level of a YAML or XML file as a map; raises InputError for any other file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size >> 20} MiB: give a calibration file, at most 1 MiB")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file: YAML or XML is expected") from None
    if text.lstrip().startswith("<"):
        return _read_xml(path, text)
    if text.startswith("%YAML"):  # OpenCV writes %YAML:1.0, which is no YAML
        text = text.partition("\n")[2]
    try:
        values = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML does not wrap the errors of its constructors, such as that for `!!timestamp x`.
        where = getattr(error, "problem_mark", None)
        raise InputError(f"{path} is not valid YAML{f' (line {where.line + 1})' if where else ''}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} has no named values: give a calibration file")
    return {str(key): value for key, value in values.items()}


def _read_xml(path: Path, text: str) -> Values:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares XML entities, which are not supported: give a file as OpenCV writes it")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not valid XML: {error}") from None
    if root.tag != "opencv_storage":
        raise InputError(f"{path} is not OpenCV's XML: its root is {root.tag}, not opencv_storage")
    values: Values = {}
    for child in root:
        if child.get("type_id") in ("opencv-matrix", "opencv-nd-matrix"):
            values[child.tag] = {part.tag: _words(part) for part in child}
        else:
            values[child.tag] = _words(child)
    return values


def _words(element: ElementTree.Element) -> Any:
    """Return the element's numbers, a single number as a scalar, or its text where it is not numeric."""
    text = (element.text or "").strip()
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return text.strip('"')
    return numbers[0] if len(numbers) == 1 and element.tag != "data" else numbers


def matrix(path: Path, key: str, value: Any, *shapes: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Read a matrix of one of `shapes` from a list, rows, or a map with `data`; the shape (0, 0) accepts any list.

    Raises InputError, which names the key.
    """
    data = value.get("data") if isinstance(value, dict) else value
    try:
        numbers = np.array(data, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: {key} must be numbers") from None
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise InputError(f"{path}: {key} must be finite numbers")
    for rows, columns in shapes:
        if (rows, columns) == (0, 0):
            return numbers.ravel()
        if numbers.size == rows * columns:
            return numbers.reshape(rows, columns)
    expected = " or ".join(f"{rows}x{columns}" for rows, columns in shapes)
    raise InputError(f"{path}: {key} must be {expected} numbers, not {numbers.size}")


def size(path: Path, key: str, width: Any, height: Any) -> tuple[int, int]:
    """Read a size as (height, width); raises InputError, which names the key."""
    for side in (width, height):
        whole = isinstance(side, int) or (isinstance(side, float) and math.isfinite(side) and side == int(side))
        if isinstance(side, bool) or not whole:
            raise InputError(f"{path}: {key} must be whole numbers of pixels")
    return int(height), int(width)
