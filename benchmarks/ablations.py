"""The ablations of the paper's Tables 1 and 2 with a small budget: train every recipe, score it, print a table.

    python benchmarks/ablations.py --encoders weights/crossfuse.safetensors --data PAIRS --ir IR --vis VIS -o runs

All recipes except one-stage start with the same encoders; all see the same samples and take the same number of
steps, once with each seed.  The table shows the mean of the seeds and the distance of the farthest one from it.
Existing runs are continued, so the script may be stopped and started again.  `no-shift` is not trained, because it is
identical to s1-c1.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from streamfuse.training.recipe import ABLATIONS

SHOWN = ("EN", "SD", "MI", "FMI_dct", "FMI_pixel", "SCD", "true_MI", "Q_ABF", "SSIM", "VIF")


def run(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "streamfuse", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"streamfuse {' '.join(arguments)}: {done.stderr[-2000:]}")


@click.command()
@click.option("--encoders", type=click.Path(exists=True), required=True, help="Weights file of the encoders.")
@click.option("--data", required=True, help="Training pairs.")
@click.option("--ir", required=True, help="Infrared images to score on.")
@click.option("--vis", required=True, help="Visible images to score on.")
@click.option("-o", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--steps", default=500, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of each recipe.")
@click.option("--jobs", default=2, show_default=True, help="Number of concurrent runs, with one thread each.")
def main(encoders: str, data: str, ir: str, vis: str, directory: Path, steps: int, seeds: int, jobs: int) -> None:
    def train(name: str, seed: int) -> dict[str, float]:
        out = directory / f"{name}-{seed}"
        start = [] if name == "one-stage" else ["--ir-encoder", encoders, "--vis-encoder", encoders]
        run(
            *("train", "fusion", "--recipe", name, "--data", data, "-o", str(out), "--resume"),
            *("--steps", str(steps), "--save-every", str(steps), "--seed", str(seed), *start),
        )
        figures = out / "figures.json"
        if not figures.is_file():
            # Not with openvino: compiling for each size would take longer than fusing.
            weights = str(out / "weights.safetensors")
            run(
                "evaluate",
                "--ir",
                ir,
                "--vis",
                vis,
                "--weights",
                weights,
                *("--engine", "torch", "--precision", "fp32", "--json", str(figures)),
            )
        mean: dict[str, float] = json.loads(figures.read_text())["mean"]
        click.echo(f"{name} with seed {seed} done", err=True)
        return mean

    names = [name for name in ABLATIONS if name != "no-shift"]
    runs = [(name, seed) for seed in range(seeds) for name in names]
    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(runs, pool.map(lambda one: train(*one), runs), strict=True))
    click.echo(f"| recipe, {steps} steps | " + " | ".join(SHOWN) + " |")
    click.echo("|---" * (len(SHOWN) + 1) + "|")
    for name in names:
        cells = []
        for metric in SHOWN:
            values = [found[name, seed][metric] for seed in range(seeds)]
            mean = statistics.fmean(values)
            cells.append(f"{mean:.4g} ± {max(abs(value - mean) for value in values):.2g}")
        click.echo(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
