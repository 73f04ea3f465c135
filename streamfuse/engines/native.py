"""Object code of Numba functions, made once for this CPU and then loaded without Numba.

Importing Numba and compiling take seconds; loading object code takes milliseconds and needs only llvmlite, Numba's
binding to LLVM.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import llvmlite.binding as llvm  # type: ignore[import-untyped]

VERSION = f"llvmlite {llvmlite.__version__}"


POINTER = ctypes.c_void_p
"""Type of the functions' arguments."""
_CHECKS = 1000
"""Pairs of arrays that LLVM may compare for overlap before a loop, instead of 8; otherwise it uses no vectors there."""


def compile_numba(make: Callable[[], Sequence[Any]]) -> bytes:
    """Compile the `numba.cfunc` that `make` returns to object code for this CPU; returns it, for `load`.

    `make` must import Numba itself, for it has to be imported after LLVM was set up here.
    """
    _initialize()
    for option in (
        "runtime-memory-check-threshold",
        "memory-check-merge-threshold",
        "vectorize-memory-check-threshold",
    ):
        llvm.set_option("", f"-{option}={_CHECKS}")
    functions = make()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, reloc="pic", jit=True
    )
    module, *others = (llvm.parse_assembly(function.inspect_llvm()) for function in functions)
    for other in others:
        module.link_in(other)
    code: bytes = machine.emit_object(module)
    missing = [one.name for one in module.functions if one.is_declaration and one.name.startswith(("numba_", "NRT_"))]
    names = [function.native_name for function in functions]
    return "\n".join((" ".join(names), " ".join(missing), "")).encode() + code


def load(made: bytes | memoryview) -> list[Callable[..., None]]:
    """Load what `compile_numba` made; returns the functions, which take pointers and release the GIL while they run.

    Raises ValueError for other content, RuntimeError if it cannot be linked.
    """
    listed, missing, code = bytes(made).split(b"\n", 2)
    names = listed.decode().split()
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for name in names:
        library.export_symbol(name)
    # Numba's runtime, for exceptions and for arrays with an owner, of which the functions here have none.
    for symbol in missing.decode().split():
        library.import_symbol(symbol, ctypes.cast(_unreachable, ctypes.c_void_p).value)
    linked = library.link(_jit(), f"{names[0]} {len(_KEPT)}")
    _KEPT.append(linked)
    return [ctypes.CFUNCTYPE(None)(linked[name]) for name in names]


_KEPT: list[Any] = []
"""Linked code; it is freed with these objects."""


def _fail() -> None:
    raise AssertionError("compiled code called Numba's runtime")


_unreachable = ctypes.CFUNCTYPE(None)(_fail)


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _jit() -> Any:
    _initialize()
    return llvm.create_lljit_compiler()
