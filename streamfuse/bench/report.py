"""Figures of one measurement as a table."""

from __future__ import annotations

from streamfuse.bench.measure import Result
from streamfuse.bench.similarity import Similarity
from streamfuse.bench.timing import Times


def markdown(result: Result) -> str:
    """Return the figures as Markdown tables, with the machine above them."""
    work, peak = result.work, result.peak
    rows = [
        ("network", _times(result.network), f"{1000 / result.network.p50_ms:.2f}"),
        ("single pair", _times(result.pair), f"{1000 / result.pair.p50_ms:.2f}"),
        (f"{result.in_flight} in flight", ("", "", ""), f"{result.in_flight_fps:.2f}"),
        ("files to file", ("", "", ""), f"{result.end_to_end_fps:.2f}"),
    ]
    lines = [
        f"{result.engine} {result.precision}, preset {result.preset}, on {result.device}, {result.size}, "
        f"{result.network.runs} runs; prepared in {result.prepare_s:.1f} s",
        f"({result.machine})",
        "",
        "| | p50 ms | p95 ms | p99 ms | fps |",
        "|---|---|---|---|---|",
        *(f"| {name} | {' | '.join(times)} | {fps} |" for name, times, fps in rows),
        "",
        "| | needed for a pair | measured peak, a second | least time, ms |",
        "|---|---|---|---|",
        f"| operations, as written | {work.flops / 1e9:.2f} G | {peak.flops_per_s / 1e12:.2f} T "
        f"| {result.arithmetic_ms:.2f} |",
        f"| bytes: weights, pictures, result | {work.least_bytes / 1e6:.1f} M | {peak.bytes_per_s / 1e9:.1f} G "
        f"| {result.memory_ms:.2f} |",
        "",
        f"The network takes {result.times_floor:.1f} times the longer of the two.",
        "",
        f"At most {result.memory_mb:.0f} MB.  {_similarity(result.similarity)}",
        "",
        "Peaks were measured with a matrix product in this precision and with a copy.  An engine that does less work "
        "than the network as written can be below the least time.",
    ]
    return "\n".join(lines)


def _similarity(similarity: Similarity) -> str:
    psnr = "equal" if similarity.psnr_db == float("inf") else f"PSNR {similarity.psnr_db:.1f} dB"
    ssim = "" if similarity.ssim is None else f", SSIM {similarity.ssim:.4f}"
    scores = f"  Metrics: {', '.join(f'{name} {value:.3f}' for name, value in similarity.scores.items())}."
    return f"Compared with the original network in FP32: {psnr}{ssim}.{scores if similarity.scores else ''}"


def _times(times: Times) -> tuple[str, str, str]:
    return f"{times.p50_ms:.2f}", f"{times.p95_ms:.2f}", f"{times.p99_ms:.2f}"
