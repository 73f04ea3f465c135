"""All fuzz targets by name."""

from __future__ import annotations

import fuzz_bags
import fuzz_files
import fuzz_network
import fuzz_thermal
import fuzz_weights

TARGETS = {
    **fuzz_bags.TARGETS,
    **fuzz_files.TARGETS,
    **fuzz_weights.TARGETS,
    **fuzz_network.TARGETS,
    **fuzz_thermal.TARGETS,
}
