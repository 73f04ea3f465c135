"""Results of other methods: means over the 21 TNO pairs of the paper.

`paper` is the row of CrossFuse in table 3 of Li and Wu (2024).  The authors' published images do not give that row;
both are shown.  The other networks were measured with their own published weights and their own pre- and
post-processing; three of them (DATFuse, YDTR, IFCNN) gave their rows of the table to every printed digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DATASET = "21 TNO pairs"


@dataclass(frozen=True, slots=True)
class Reference:
    title: str
    short: str
    """Title for narrow columns."""
    values: Mapping[str, float]
    digits: Mapping[str, int] = field(default_factory=dict)
    """Decimal places, if fewer are known than the tables print."""


def _peer(
    title: str, short: str, mi: float, q: float, ssim: float, vif: float, ag: float, en: float, sd: float, scd: float
) -> Reference:
    values = dict(true_MI=mi, Q_ABF=q, SSIM=ssim, VIF=vif, AG=ag, EN=en, SD=sd, SCD=scd)
    return Reference(title, short, values, dict(EN=3, SD=1, SCD=3))


PAPER_ROW = Reference(
    "CrossFuse, as printed in the paper",
    "paper",
    dict(EN=6.8389, SD=73.4712, MI=13.6779, FMI_dct=0.3866, FMI_pixel=0.9044, SCD=1.7659),
)
AUTHORS_IMAGES = Reference(
    "CrossFuse, the authors' images, measured",
    "authors",
    dict(
        EN=6.8229, SD=80.765, MI=13.6458, FMI_dct=0.4157, FMI_pixel=0.9081, SCD=1.3836,
        true_MI=3.125, Q_ABF=0.454, SSIM=0.690, VIF=0.753, AG=4.97,
    ),
)  # fmt: skip
AVERAGE = Reference(
    "plain average",
    "average",
    dict(
        EN=6.1743, SD=47.850, MI=12.3487, FMI_dct=0.4076, FMI_pixel=0.9089, SCD=1.6306,
        true_MI=2.140, Q_ABF=0.345, SSIM=0.781, VIF=0.535, AG=3.06,
    ),
)  # fmt: skip
MAXIMUM = Reference(
    "per-pixel maximum",
    "maximum",
    dict(
        EN=6.5322, SD=77.565, MI=13.0643, FMI_dct=0.2856, FMI_pixel=0.8934, SCD=1.5957,
        true_MI=6.592, Q_ABF=0.572, SSIM=0.714, VIF=0.886, AG=4.11,
    ),
)  # fmt: skip
VISIBLE_COPY = Reference(
    "visible copied",
    "visible",
    dict(EN=6.6911, SD=97.74, MI=13.3823, FMI_dct=0.5496, FMI_pixel=0.9352),
    dict(SD=2),
)
PEERS = (
    _peer("guided filter (classical)", "guided filter", 4.295, 0.622, 0.721, 0.891, 5.20, 6.857, 82.2, 1.374),
    _peer("MMDRFuse teacher", "MMDRFuse", 3.644, 0.554, 0.700, 0.851, 5.47, 6.985, 91.1, 1.644),
    _peer("MMDRFuse student", "MMDRFuse s.", 2.865, 0.466, 0.709, 0.690, 5.52, 6.974, 81.8, 1.762),
    _peer("SeAFusion", "SeAFusion", 2.776, 0.476, 0.694, 0.664, 6.00, 7.011, 87.4, 1.745),
    _peer("DATFuse", "DATFuse", 3.377, 0.483, 0.713, 0.672, 4.16, 6.321, 56.0, 1.524),
    _peer("IFCNN-MAX", "IFCNN", 2.383, 0.504, 0.734, 0.594, 5.79, 6.596, 66.9, 1.714),
)
TABLE_ROWS = (PAPER_ROW, AUTHORS_IMAGES, AVERAGE, MAXIMUM, VISIBLE_COPY)
REFERENCE_ROWS = (AUTHORS_IMAGES, AVERAGE, MAXIMUM, *PEERS)
