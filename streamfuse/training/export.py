"""Export of a checkpoint as a weights file."""

from __future__ import annotations

import json
from pathlib import Path

from streamfuse.network.checkpoint import save
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.training.recipe import from_dict
from streamfuse.training.state import read_network, read_state


def export_weights(directory: Path) -> Path:
    """Write weights.safetensors from the best checkpoint of a stage-2 run; that of a stage-1 run is used as it is.

    Returns the path of the file that the next command takes.
    """
    best = directory / "best.safetensors"
    metadata, tensors = read_state(best)
    if not any(name.startswith("network.cam.") for name in tensors):
        return best
    about = json.loads(metadata["about"])
    recipe = from_dict(about["recipe"], str(best))
    network = CrossFuse(recipe.network)
    read_network(best, network)
    trained = json.dumps({**about, "step": int(metadata["step"])}, sort_keys=True)
    path = directory / "weights.safetensors"
    save(network, path, extra={"preset": recipe.preset, "trained": trained})
    return path
