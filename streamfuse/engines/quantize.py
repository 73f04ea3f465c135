"""The network in INT8, by NNCF's post-training quantization.

Convolutions and linear layers multiply 8-bit numbers; what is sensitive (LayerNorm, softmax, skip weights, the
products of attention) stays as it is, which is NNCF's scheme for transformers.  On seven pairs its least PSNR to FP32
was 40.8 dB; with the convolutions alone it was 24.6, with the linear layers alone 34.3.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType
from typing import Any, cast

import numpy as np

from streamfuse.color import Plane
from streamfuse.errors import UsageError


def quantize(model: Any, pairs: Sequence[tuple[Plane, Plane]]) -> Any:
    """An openvino.Model of two (H, W) uint8 inputs, with its layers in INT8; takes minutes.

    Raises UsageError where NNCF is not installed.
    """
    nncf = _import_nncf()
    data = nncf.Dataset(pairs, lambda pair: [np.ascontiguousarray(plane) for plane in pair])
    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        # Its progress bars go past its log.
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            return nncf.quantize(
                model,
                data,
                subset_size=len(pairs),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER,
            )
    finally:
        log.setLevel(level)


def _import_nncf() -> Any:
    """NNCF without its telemetry, which it sends, without asking, if it finds the package."""
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = cast(ModuleType, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "nncf":
            raise
        raise UsageError("precision int8 needs the package nncf: pip install 'streamfuse[int8]'") from None
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    return nncf
