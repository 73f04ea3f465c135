"""Checks of the software that runs a network and reads and writes video: weights, engines, codecs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamfuse.doctor.machine import installed_version
from streamfuse.doctor.report import Check, failed, ok, warning
from streamfuse.doctor.sample import load_sample
from streamfuse.engines import create_engine, engine_names, has_gpu
from streamfuse.errors import EngineError, WeightsError
from streamfuse.network.checkpoint import default_weights, load, read_info

PACKAGES = {
    "openvino": ("openvino",),
    "tensorrt": ("torch-tensorrt", "torch-tensorrt-rtx"),
    "inductor": ("torch",),
    "torch": ("torch",),
}
"""The packages of each engine: with none of them it is not installed."""
DECODERS = ("h264", "hevc", "mjpeg", "mpeg4", "ffv1", "rawvideo")
"""Codecs that recordings, cameras and network streams usually carry."""


def check_weights(weights: Path | None) -> Iterator[Check]:
    """The weights file, None for the shipped one: all of it is read."""
    path = weights or default_weights()
    info = read_info(path)
    shipped = load_sample().digests
    files = [info, *([lite] if (lite := info.lite()) is not None and lite is not info else [])]
    if weights is None:
        damaged = [file.path for file in files if shipped.get(file.path.name) != file.digest]
        if damaged:
            yield failed(
                "weights",
                f"{damaged[0]} is not the file that was shipped, or is damaged: install streamfuse again",
                digest=info.digest,
            )
            return
    try:
        for file in files:
            load(file.path)
    except WeightsError as error:
        yield failed("weights", f"{error}; fetch or make the file again", digest=info.digest)
        return
    names = " and ".join(file.path.name for file in files)
    text = f"{names}, {info.parameters / 1e6:.1f} M parameters, best run at preset {info.preset}"
    yield ok("weights", text, digest=info.digest, parameters=info.parameters)


def check_engines(weights: Path | None) -> Iterator[Check]:
    """Check that each installed engine can be created, and name the one that `auto` takes."""
    from streamfuse.engines.tensorrt import find_flavour

    for name in engine_names():
        versions = {package: version for package in PACKAGES[name] if (version := installed_version(package))}
        title = f"engine {name}"
        if not versions:
            if has_gpu() and name == "tensorrt":
                yield warning(title, "not installed; it is the fastest on this GPU: pip install 'streamfuse[tensorrt]'")
            else:
                yield ok(title, "not installed")
            continue
        try:
            if name in ("tensorrt", "inductor") and not has_gpu():
                found = find_flavour().title if name == "tensorrt" else f"PyTorch {versions['torch']}"
                yield ok(title, f"{found}, without an NVIDIA GPU to run on", **versions)
                continue
            with create_engine(name, weights=weights) as engine:
                version = versions.get(engine.package, "")
                auto = "the faster one, measured for each size," if engine.measures_precision else engine.precision
                text = f"{version}; precision auto is {auto} on {engine.device}"
                yield ok(title, text, version=version, precision=str(engine.precision), device=engine.device)
        except WeightsError:
            raise
        except EngineError as error:
            yield failed(title, str(error), **versions)
    with create_engine("auto", weights=weights) as engine:
        precision = "the faster precision" if engine.measures_precision else engine.precision
        text = f"{engine.name} in {precision}, preset {engine.preset}"
        yield ok("engine auto", text, engine=engine.name, precision=str(engine.precision), preset=str(engine.preset))


def check_codecs() -> Iterator[Check]:
    import av

    from streamfuse.sinks.encoder import NVENC, why_not
    from streamfuse.sinks.video_format import CODECS

    library = f"PyAV {av.__version__} with libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    advice = "pip install --force-reinstall av, whose wheels have all codecs"
    reasons = {codec: why_not(encoder) for codec, encoder in CODECS.items()}
    missing = {codec: reason for codec, reason in reasons.items() if reason is not None}
    for codec, reason in missing.items():
        yield failed(f"codec {codec}", f"{CODECS[codec]} does not encode ({reason}): {advice}", reason=reason)
    if not missing:
        yield ok("encoders", f"{', '.join(CODECS)}; {library}", encoders=list(CODECS))
    unreadable = [codec for codec in DECODERS if codec not in av.codecs_available]
    if unreadable:
        yield failed("decoders", f"{', '.join(unreadable)} cannot be read: {advice}", missing=unreadable)
    else:
        yield ok("decoders", ", ".join(DECODERS), decoders=list(DECODERS))
    if has_gpu():
        if (problem := why_not(NVENC["h264"])) is None:
            yield ok("NVENC", "h264 is encoded on the GPU with --hw-encode")
        else:
            yield warning("NVENC", f"h264 is not encoded on the GPU ({problem}): leave out --hw-encode", reason=problem)
