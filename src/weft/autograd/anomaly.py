"""Anomaly mode: a backward error or NaN names the forward line that made the node.

Off by default, because each recorded op then looks up the user's line (about 5 us).
"""

from __future__ import annotations

import linecache
import traceback
import warnings
from typing import Any

from weft.autograd import graph
from weft.core.caller import user_frame
from weft.core.handle import Handle, TapeNode
from weft.ops.compare import ne


class _Mode:
    on = False
    check_nan = True


def enabled() -> bool:
    return _Mode.on


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on."""
    return _Mode.on


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly mode also looks for NaN in gradients."""
    return _Mode.check_nan


def _set(on: bool, check_nan: bool) -> None:
    _Mode.on, _Mode.check_nan = bool(on), bool(check_nan)
    if on:
        graph.watch("anomaly", _note_line)
    else:
        graph.unwatch("anomaly")


class set_detect_anomaly:
    """`set_detect_anomaly(mode)`: at once, and until the end of a `with` block."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = (_Mode.on, _Mode.check_nan)
        _set(mode, check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        _set(*self._before)


class detect_anomaly(set_detect_anomaly):
    """`with detect_anomaly():` errors and NaN in backward name the forward line."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should "
            "only be enabled for debugging.",
            stacklevel=2,
        )


def _note_line(node: TapeNode) -> None:
    """The innermost line outside the package."""
    frame = user_frame()
    if frame is not None:
        node.line = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def where(node: TapeNode) -> str:
    """`file:line in function: source` of the call that made the node."""
    if node.line is None:
        return "no line was recorded: the forward pass ran without anomaly mode"
    file, line, name = node.line
    return f"{file}:{line} in {name}: {linecache.getline(file, line).strip()}"


def run(node: TapeNode, g: Any, result: Any, saved: tuple) -> tuple:
    """The node's vjp, each cotangent computed and looked at."""
    try:
        given = node.op.vjp(g, result, *saved)
        out = tuple(
            c()
            if c is not None and e is not None and callable(c) and not isinstance(c, Handle)
            else c
            for c, e in zip(given, node.edges, strict=False)
        )
    except Exception:
        _warn(node, f"Error detected in {node.name()}:\n{traceback.format_exc(limit=-1)}")
        raise
    if _Mode.check_nan:
        for i, (c, e) in enumerate(zip(out, node.edges, strict=False)):
            if e is not None and isinstance(c, Handle) and bool(ne(c, c).any()):
                raise RuntimeError(
                    f"Function '{node.name()}' returned nan values in its {i}th output. "
                    f"Forward call: {where(node)}"
                )
    return out


def _warn(node: TapeNode, what: str) -> None:
    warnings.warn(f"{what}Forward call that caused the error: {where(node)}", stacklevel=5)
