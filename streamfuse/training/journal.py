"""Records of a training run: losses as CSV, TensorBoard events and a plot, and sample pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from streamfuse.closeable import Closeable
from streamfuse.errors import OutputError
from streamfuse.evaluation.sheet import contact_sheet
from streamfuse.files import write_whole
from streamfuse.sinks.images import write_image

Row = Mapping[str, float]


class Journal(Closeable):
    """Writes losses.csv, losses.png, events.out.tfevents.* and samples/*.png to a directory.

    A resumed run continues the same files; rows of steps that it repeats are removed.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._directory = directory
        self._samples = directory / "samples"
        try:
            self._samples.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self._samples}: {error.strerror}") from None
        self._csv = directory / "losses.csv"
        self._rows: list[dict[str, float]] = []
        if first_step and self._csv.is_file():
            with self._csv.open(newline="") as file:
                rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
            self._rows = [row for row in rows if row["step"] <= first_step]
        self._fields: list[str] = []
        self._events = SummaryWriter(str(directory), purge_step=first_step + 1)
        self._write_all()

    def close(self) -> None:
        self._events.close()

    def add(self, step: int, values: Row) -> None:
        """Add a row: the step, counted from 1, and its figures."""
        row = {"step": float(step), **values}
        self._rows.append(row)
        for key, value in values.items():
            self._events.add_scalar(key, value, step)
        if [key for key in row if key not in self._fields]:
            self._write_all()
            return
        try:
            with self._csv.open("a", newline="") as file:
                csv.DictWriter(file, self._fields).writerow(_shown(row))
        except OSError as error:
            raise OutputError(f"cannot write {self._csv}: {error.strerror}") from None

    def _write_all(self) -> None:
        self._fields = list(dict.fromkeys(key for row in self._rows for key in row)) or ["step"]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._fields)
        writer.writeheader()
        writer.writerows(_shown(row) for row in self._rows)
        write_whole(self._csv, text.getvalue().encode())

    def plot(self) -> None:
        """Draw losses.png: every figure over the steps; thin: the values, thick: their running mean."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names = [key for key in self._fields if key not in ("step", "rate", "seconds")]
        if not names or not self._rows:
            return
        figure = Figure(figsize=(10, 2.2 * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, name in zip(np.atleast_1d(figure.subplots(len(names), sharex=True)), names, strict=True):
            points = np.array([(row["step"], row[name]) for row in self._rows if name in row])
            few = len(points) < 100
            axes.plot(points[:, 0], points[:, 1], color="#1f77b4", lw=1.2 if few else 0.5, alpha=1 if few else 0.4)
            if not few:
                window = max(len(points) // 50, 5)
                mean = np.convolve(points[:, 1], np.ones(window) / window, "valid")
                axes.plot(points[window - 1 :, 0], mean, color="#1f77b4", lw=1.8)
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
            if (points[:, 1] > 0).all() and points[:, 1].max() > 20 * points[:, 1].min():
                axes.set_yscale("log")
        axes.set_xlabel("step")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=90)
        write_whole(self._directory / "losses.png", data.getvalue())

    def show(self, step: int, batch: Tensor, rendered: Tensor, most: int = 6) -> None:
        """Write samples/STEP.png: infrared and visible of `batch`, (B, 2, H, W), and `rendered`, (B, 1, H, W)."""
        images = torch.cat((batch, rendered), dim=1)[:most].clamp(0, 255).round().to(torch.uint8).cpu().numpy()
        rows = [[cv2.cvtColor(plane, cv2.COLOR_GRAY2BGR).astype(np.uint8) for plane in row] for row in images]
        sheet = contact_sheet(rows, ("infrared", "visible", f"step {step}"), [str(i + 1) for i in range(len(rows))])
        write_image(self._samples / f"{step:07d}.png", sheet)
        self._events.add_image("samples", sheet[:, :, ::-1], step, dataformats="HWC")


def _shown(row: Row) -> dict[str, str]:
    """Format with every digit, so that a resumed run can be compared exactly."""
    return {key: str(int(value)) if key == "step" else repr(value) for key, value in row.items()}
