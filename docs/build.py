"""Build the API reference with pdoc: `python docs/build.py DIRECTORY`; `scripts/docs` installs the requirements.

Warnings are errors: names that cannot be resolved, docstrings that cannot be parsed.
"""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import streamfuse

HARMLESS = (
    # pdoc does not search the module of a NamedTuple; Packet can be subscripted in PyAV's stubs only.
    r"Error parsing type annotation ForwardRef\('[^']+'\) for streamfuse\.[\w.]+\.__init__",
    r"Error parsing type annotation \S+ for .* type 'av\.packet\.Packet' is not subscriptable",
)


def modules() -> list[str]:
    """Names of the package and of its modules, without the command line."""
    below = [
        module.name for module in pkgutil.iter_modules(streamfuse.__path__) if module.name not in ("cli", "__main__")
    ]
    return ["streamfuse", *(f"streamfuse.{name}" for name in below)]


def build(directory: Path) -> None:
    """Write the pages of all modules except the command line, which has --help."""
    for name in streamfuse.__all__:  # names that are imported on first use, which pdoc does not trigger
        setattr(streamfuse, name, getattr(streamfuse, name))
    firsts = {name: (importlib.import_module(name).__doc__ or "").strip().partition("\n")[0] for name in modules()[1:]}
    table = "\n".join(f"- `{name}`: {first}" for name, first in firsts.items())
    streamfuse.__doc__ = f"{streamfuse.__doc__}\n\n## Modules\n\n{table}\n"
    pdoc.render.configure(docformat="markdown", show_source=False, footer_text=f"streamfuse {streamfuse.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message)
        pdoc.pdoc(*modules(), output_directory=directory)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
