"""Calibration files of other programs, as numbers: OpenCV (YAML and XML), ROS camera_info, Kalibr camchains.

YAML is read with PyYAML's safe loader and nothing else: such files come from anywhere.
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
"""Calibrations have a few kilobytes."""

Values = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """The safe loader, which also knows OpenCV's matrices as plain maps, and knows no aliases.

    A few lines of aliases of aliases stand for more than any memory holds, and no calibration has any.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.YAMLError("a matrix is a map")
    return loader.construct_mapping(node, deep=True)


for _tag in ("opencv-matrix", "opencv-nd-matrix"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _opencv_matrix)


def read_values(path: Path) -> Values:
    """The top of a YAML or XML file as a map; raises InputError for what is neither."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size >> 20} MiB: that is no calibration")
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
        # PyYAML lets the errors of what it calls pass, as for `!!timestamp x`.
        where = getattr(error, "problem_mark", None)
        raise InputError(f"{path} is not valid YAML{f' (line {where.line + 1})' if where else ''}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no named values: is it a calibration?")
    return {str(key): value for key, value in values.items()}


def _read_xml(path: Path, text: str) -> Values:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares entities: OpenCV writes none")
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
    """Numbers where all words are, a single one by itself; else the text."""
    text = (element.text or "").strip()
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return text.strip('"')
    return numbers[0] if len(numbers) == 1 and element.tag != "data" else numbers


def matrix(path: Path, key: str, value: Any, *shapes: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A matrix of one of these shapes, (0, 0) standing for any list; from a list, rows, or a map with data.

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
    raise InputError(f"{path}: {key} must be {expected} numbers, and it has {numbers.size}")


def size(path: Path, key: str, width: Any, height: Any) -> tuple[int, int]:
    """(height, width)"""
    for side in (width, height):
        whole = isinstance(side, int) or (isinstance(side, float) and math.isfinite(side) and side == int(side))
        if isinstance(side, bool) or not whole:
            raise InputError(f"{path}: {key} must be whole numbers of pixels")
    return int(height), int(width)
