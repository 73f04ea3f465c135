"""Recipes of training, importable without torch: the published recipe, the default one, and the ablations.

A recipe file is TOML with any of the fields below; missing ones are taken from the recipe named by `base`:

    base = "default"
    steps = 4000
    [losses]            # replaces the base's table
    intensity = 1.0
    gradient = 10.0
    [network]
    depth = 2
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamfuse.errors import UsageError
from streamfuse.network.config import (
    Attention,
    CrossFuseConfig,
    Ends,
    Fusion,
    Output,
    Preset,
    SkipArea,
    SkipBorder,
    SkipWeights,
    Veil,
    Window,
)
from streamfuse.support.files import read_toml

LOSSES = (
    "intensity",
    "gradient",
    "selection",
    "contrast",
    "edges",
    "structure",
    "differences",
    "fidelity",
    "information",
    "quality",
    "pyramid",
    "texture",
    "similarity",
    "range",
    "steadiness",
    "warmth",
    "imitation",
    "likeness",
)
"""Names of the losses; the last two compare with a teacher's picture and are for distillation only."""

_DIRECT = CrossFuseConfig(skip_weights=SkipWeights.MAGNITUDE, output=Output.DIRECT)
_RANGE = dataclasses.replace(
    _DIRECT,
    skip_border=SkipBorder.REFLECT,
    skip_power=8,
    skip_area=SkipArea.BLOCK,
    skip_infrared=1.0,
    window=Window.FITTED,
    ends=Ends.BENT,
    veil=Veil.LIFTED,
)


class Train(enum.StrEnum):
    """The part of the network that is trained in stage 2."""

    FUSION = "fusion"
    """CAM and decoder; the encoders of stage 1 are fixed (section 3.2)."""
    SHALLOW = "shallow"
    """Also the first conv of each encoder, through the shallow skip: 3 % more time on a CPU; ALL needs 93 % more."""
    ALL = "all"
    """Everything; with randomly initialised encoders this is the one-stage ablation."""


class Norm(enum.StrEnum):
    """Statistics used by the decoder's BatchNorms."""

    BATCH = "batch"
    """Those of the batch, as published; running ones are kept for inference."""
    FROZEN = "frozen"
    """The running ones of the initial network, so that training computes the same as inference."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One stage of training."""

    steps: int = 4000
    batch: int = 4
    """Pairs per step, over all processes."""
    crop: int = 256
    """Side of the crops, pixels; 256 is one attention window."""
    lr: float = 3e-4
    schedule: str = "cosine"
    """cosine: falls to 1 % at the last step; steps: divided by 10 after one half and three quarters of the steps."""
    warmup: int = 50
    """Steps in which the learning rate rises from 0."""
    ema: float = 0.0
    """Decay of the running mean of the weights, which is the result; 0: no mean."""
    clip: float = 0.0
    """Largest norm of the gradient (gradient clipping); 0: no limit."""
    bf16: bool = True
    """Autocast to BF16; losses are always FP32."""
    zoom: float = 1.0
    """Crops have 1 / zoom to zoom times the size and are resized to `crop`."""
    noise: float = 0.0
    """Largest sigma of Gaussian sensor noise, grey levels; random for each image and modality."""
    light: float = 0.0
    """Gain 1 +- light and offset +- 128 * light; random for each image and modality."""
    night: float = 0.0
    """Share of samples whose visible picture is darkened, except for lamps, and gets more noise."""
    glare: float = 0.0
    """Share of samples with a light that blinds the visible camera."""
    smoke: float = 0.0
    """Share of samples with smoke in front of the visible camera."""
    faint: float = 0.0
    """Share of samples whose infrared has little contrast."""
    inverted: float = 0.0
    """Share of samples with inverted infrared: warm is dark."""
    shift: float = 0.0
    """Largest shift of infrared along either axis, pixels."""
    frames: int = 1
    """Consecutive frames in a sample: 1, or 2, which losses over time need."""
    train: Train = Train.FUSION
    norm: Norm = Norm.BATCH
    losses: Mapping[str, float] = field(default_factory=lambda: {"intensity": 1.0, "gradient": 10.0})
    """Weight of each term of `streamfuse.training.losses`; stage 1 always uses Eq. 7."""
    network: CrossFuseConfig = _DIRECT
    factor: int = 1
    """Reduction of the deep path's width and height; see `streamfuse.network.scaled`."""
    lean: float = 0.0
    """Visible bias of the teacher's picture in distillation, 0..1; see `losses.leaning`."""

    @property
    def preset(self) -> Preset:
        """The recommended preset of the result."""
        if self.factor == 1:
            return Preset.QUALITY
        return Preset.REALTIME if self._taught else Preset.BALANCED

    @property
    def _taught(self) -> bool:
        return bool({"imitation", "likeness"} & self.losses.keys())

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        done = step / self.steps
        if self.schedule == "steps":
            return float(self.lr * 0.1 ** ((done >= 0.5) + (done >= 0.75)))
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.crop < 64 or self.crop % 8:
            raise UsageError("a recipe needs steps and batch of at least 1, and a crop from 64 in steps of 8")
        if not (0 < self.lr < 1 and self.zoom >= 1 and 0 <= self.ema < 1 and 0 <= self.light < 1):
            raise UsageError("a recipe needs 0 < lr < 1, zoom >= 1, 0 <= ema < 1 and 0 <= light < 1")
        if not 0 <= self.lean <= 1 or (self.lean and not self._taught):
            raise UsageError("a recipe needs 0 <= lean <= 1, and with lean the loss imitation or likeness")
        shares = (self.night, self.glare, self.smoke, self.faint, self.inverted)
        if not (min(shares) >= 0 and max(shares) <= 1 and 0 <= self.shift <= 8 and self.frames in (1, 2)):
            raise UsageError("a recipe needs shares of samples of 0 to 1, 0 <= shift <= 8, and frames of 1 or 2")
        if self.frames == 1 and "steadiness" in self.losses:
            raise UsageError("the loss steadiness needs frames = 2")
        if self.factor not in (1, 2, 4, 8) or self.crop < 16 * self.factor:
            raise UsageError("a recipe needs a factor of 1, 2, 4 or 8, and a crop of at least 16 times as many pixels")
        if self.factor > 1 and self.train is Train.SHALLOW:
            raise UsageError("a recipe with a factor above 1 trains all, or fusion")
        if self.schedule not in ("cosine", "steps"):
            raise UsageError(f"unknown schedule {self.schedule!r}: use cosine or steps")
        if unknown := [name for name in self.losses if name not in LOSSES]:
            raise UsageError(f"unknown loss {unknown[0]!r}; known are {', '.join(LOSSES)}")
        if not any(self.losses.values()):
            raise UsageError("a recipe needs a loss of weight above 0")


_REPLACE = dataclasses.replace

PUBLISHED = Recipe(steps=20_000, batch=8, lr=1e-3, schedule="steps", warmup=0, bf16=False, network=CrossFuseConfig())
_SCENES: dict[str, Any] = {
    "zoom": 1.2,
    "noise": 0.4,
    "light": 0.1,
    "night": 0.12,
    "glare": 0.05,
    "smoke": 0.15,
    "faint": 0.06,
    "inverted": 0.03,
    "shift": 0.5,
}
_KEPT = {
    "texture": 10.0,
    "fidelity": 2.5,
    "information": 2.0,
    "differences": 0.4,
    "range": 50.0,
    "warmth": 600.0,
}
DEFAULT = Recipe(
    steps=4000,
    batch=2,
    ema=0.998,
    clip=1.0,
    zoom=1.6,
    noise=4.0,
    light=0.25,
    train=Train.SHALLOW,
    norm=Norm.FROZEN,
    losses={
        "selection": 10.0,
        "contrast": 3.0,
        "edges": 10.0,
        "differences": 0.1,
        "fidelity": 1.0,
        "information": 1.0,
    },
)
RANGE = Recipe(
    steps=4000,
    batch=4,
    crop=192,
    lr=5e-4,
    warmup=20,
    ema=0.99,
    clip=1.0,
    **_SCENES,
    train=Train.ALL,
    norm=Norm.FROZEN,
    losses={"pyramid": 6.0, "similarity": 2.0, "quality": 8.0, **_KEPT},
    network=_RANGE,
    factor=4,
)
"""Keeps shadows and highlights, and selects fine detail from one source: that of the shipped weights."""
# The published losses at a rate and precision for small budgets: only what a row names differs from the first.  Windows
# are fitted to the crops, whose padding to the published windows would be two thirds of a step.
_FITTED = _REPLACE(_DIRECT, window=Window.FITTED)
_ABLATION = Recipe(steps=300, batch=4, crop=128, lr=1e-3, network=_FITTED)
ABLATIONS: dict[str, Recipe] = {
    "s1-c1": _ABLATION,
    "s2-c2": _REPLACE(_ABLATION, network=_REPLACE(_FITTED, depth=2)),
    "s3-c3": _REPLACE(_ABLATION, network=_REPLACE(_FITTED, depth=3)),
    "softmax": _REPLACE(_ABLATION, network=_REPLACE(_FITTED, attention=Attention.SOFTMAX)),
    "no-shift": _ABLATION,  # the shift does nothing: tests/test_network.py shows it
    "f-cnn": _REPLACE(_ABLATION, network=_REPLACE(_FITTED, fusion=Fusion.CNN)),
    "f-dense": _REPLACE(_ABLATION, network=_REPLACE(_FITTED, fusion=Fusion.DENSE)),
    "one-stage": _REPLACE(_ABLATION, train=Train.ALL),
    "no-intensity": _REPLACE(_ABLATION, losses={"gradient": 10.0}),
    "no-gradient": _REPLACE(_ABLATION, losses={"intensity": 1.0}),
}
RECIPES: dict[str, Recipe] = {"default": DEFAULT, "range": RANGE, "published": PUBLISHED, **ABLATIONS}
"""Recipes of stage 2."""

AUTOENCODERS: dict[str, Recipe] = {
    "default": Recipe(steps=4000, batch=2, zoom=1.6, light=0.25),
    # 40,000 images, 4 epochs, batches of 2
    "published": Recipe(steps=80_000, batch=2, lr=1e-3, schedule="steps", warmup=0, bf16=False),
}
"""Recipes of stage 1."""

_LITE = dataclasses.replace(_DIRECT, skip_border=SkipBorder.REFLECT, shallow=8, deep=32, growth=16)
STUDENTS: dict[str, Recipe] = {
    "default": Recipe(
        steps=6000,
        batch=2,
        crop=320,
        lr=2e-3,
        ema=0.998,
        clip=1.0,
        bf16=False,
        zoom=1.6,
        noise=4.0,
        light=0.25,
        train=Train.ALL,
        norm=Norm.FROZEN,
        losses={"imitation": 10.0, "likeness": 1.0},
        network=_LITE,
        factor=4,
    ),
    "range": Recipe(
        steps=6000,
        batch=3,
        crop=192,
        lr=1e-3,
        warmup=20,
        ema=0.99,
        clip=1.0,
        bf16=False,
        **_SCENES,
        train=Train.ALL,
        norm=Norm.FROZEN,
        losses={"imitation": 25.0, "likeness": 4.0, "quality": 4.0, **_KEPT},
        network=dataclasses.replace(_RANGE, shallow=8, deep=32, growth=16),
        factor=4,
    ),
}
"""Recipes of distillation."""


def read_recipe(text: str, known: Mapping[str, Recipe]) -> Recipe:
    """Return a recipe by its name, or read it from a TOML file; raises UsageError."""
    if text in known:
        return known[text]
    path = Path(text)
    if path.suffix != ".toml":
        raise UsageError(f"unknown recipe {text!r}: use {', '.join(known)} or a .toml file")
    values = read_toml(path)
    base = values.pop("base", "default")
    if not isinstance(base, str) or base not in known:
        raise UsageError(f"{path}: unknown base {base!r}: use {', '.join(known)}")
    start = to_dict(known[base])
    if isinstance(network := values.get("network"), dict):
        values["network"] = {**start["network"], **network}
    return from_dict({**start, **values}, str(path))


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Convert to plain values, for TOML and JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def from_dict(values: Mapping[str, Any], label: str) -> Recipe:
    """The inverse of `to_dict`; raises UsageError for unknown keys and values of a wrong type."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key == "losses":
            if not isinstance(value, dict):
                raise UsageError(f"{label}: losses is a table of weights")
            fields[key] = {name: _typed(f"losses.{name}", weight, 0.0, label) for name, weight in value.items()}
        elif key == "network":
            if not isinstance(value, dict):
                raise UsageError(f"{label}: network is a table")
            known = _typed_fields(value, _DIRECT, label)
            try:
                fields[key] = CrossFuseConfig(**known)
            except ValueError as error:
                raise UsageError(f"{label}: {error}") from None
        else:
            fields |= _typed_fields({key: value}, DEFAULT, label)
    return Recipe(**fields)


def _typed_fields(values: Mapping[str, Any], like: Any, label: str) -> dict[str, Any]:
    """Return values for a dataclass, each of the type that it has in `like`."""
    known = [entry.name for entry in dataclasses.fields(like)]
    if unknown := [key for key in values if key not in known]:
        raise UsageError(f"{label}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
    return {key: _typed(key, value, getattr(like, key), label) for key, value in values.items()}


def _typed(key: str, value: Any, like: Any, label: str) -> Any:
    kind: Any = type(like)
    if kind is float and type(value) is int and abs(value) < 1 << 64:
        return float(value)
    if isinstance(like, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise UsageError(f"{label}: {key} is one of {', '.join(map(str, kind))}, not {value!r}") from None
    if type(value) is not kind:
        raise UsageError(f"{label}: {key} must be of the kind of {like!r}, got {value!r}")
    return value
