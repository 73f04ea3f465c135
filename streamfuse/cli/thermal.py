"""The options of a run for temperatures, and the step that they describe."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import click

from streamfuse.cli.decorators import F, together
from streamfuse.errors import UsageError
from streamfuse.temperature import UNITS

if TYPE_CHECKING:
    from streamfuse.thermometry.finish import ThermalFinish


def thermal(function: F) -> F:
    """Add --overlay, --degrees, --palette, --palette-from and --alarm to a command; it gets `finish`, or None."""

    @together(
        click.option(
            "--overlay",
            metavar="spots|scale|area:X,Y,W,H",
            multiple=True,
            help="Draw temperatures into the picture: the hottest and the coldest spot, a scale, or minimum, mean and "
            "maximum of an area (pixels of the output); may be given several times.",
        ),
        click.option(
            "--degrees",
            type=click.Choice(UNITS),
            help="Unit of --overlay.  Default: C.",
        ),
        click.option(
            "--palette",
            metavar="NAME",
            help="Colour warm things: iron, rainbow, hot, turbo, magma or white-hot; the brightness stays.",
        ),
        click.option(
            "--palette-from",
            metavar="30C[..80C]",
            help="Temperature above which --palette colours, and that of its last colour.  Default: 30C..70C.",
        ),
        click.option(
            "--alarm",
            "alarms",
            metavar="RULE",
            multiple=True,
            help="Log, publish and count when a rule holds, such as 'max > 60C for 2s'; may be given several times.",
        ),
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        overlay: tuple[str, ...],
        degrees: str | None,
        palette: str | None,
        palette_from: str | None,
        alarms: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        if palette_from is not None and palette is None:
            raise UsageError("--palette-from needs --palette: name one, such as --palette iron")
        if degrees is not None and not overlay:
            raise UsageError("--degrees is the unit of --overlay: give one, such as --overlay spots")
        finish: ThermalFinish | None = None
        if overlay or palette or alarms:
            from streamfuse.thermometry.finish import ThermalFinish

            finish = ThermalFinish(overlay, palette, palette_from or "30C", alarms, degrees or "C")
        return function(*args, finish=finish, **kwargs)

    return cast(F, wrapper)
