"""What a program is made of: places of values, native launches, calls of NumPy; and their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from weft.compile.fuse import Group
from weft.core import config
from weft.core import scalar as S
from weft.core.op import Op
from weft.kernels import Packed
from weft.kernels.layout import Layout
from weft.kernels.schedule.lower import lower_nest
from weft.runtime import native


@dataclass(frozen=True)
class Place:
    """Where a value lies: a base (kind, index), an element offset in it, a layout."""

    base: tuple[str, Any]  # ("in", name) ("out", name) ("arena", slot) ("const", i)
    offset: int
    layout: Layout


@dataclass
class HostCall:
    """An op that NumPy computes."""

    op: Op
    ins: list[Place]
    out: Place
    compute: Callable[..., Any]
    line: str | None = None  # the user's, as file.py:41


@dataclass
class Entry:
    """A native launch: its operands' places (further outputs first)."""

    launch: native.Launch
    out: Place
    ins: list[Place]
    op: Op
    label: str
    loops: tuple[str, ...] = ()  # what the loop computes, for people
    line: str | None = None  # the user's, as file.py:41
    aside: bool = False  # it makes none of the op's products: a copy before it, a loop after it
    packed: Callable[[], Packed | None] | None = None  # how input 1 could come packed


def describe(steps: Sequence[Entry | HostCall]) -> str:
    """The schedule, one line a step."""
    lines = []
    for i, s in enumerate(steps):
        what = s.label if isinstance(s, Entry) else f"host {s.op}"
        out = s.out
        lines.append(f"{i:4d} {what} -> {out.base[0]}:{out.base[1]} {list(out.layout.shape)}")
        if isinstance(s, Entry):
            lines.extend(f"       {text}" for text in s.loops)
    return "\n".join(lines)


def label_of(group: Group) -> str:
    names = [n.op.name for n in group.nodes]  # type: ignore[union-attr]
    return " ".join(names) if len(names) <= 6 else f"{' '.join(names[:5])} ... {len(names)} ops"


def loops_of(exprs: list[S.Expr], ins: list[Place], outs: list[Place]) -> tuple[str, ...]:
    """The loop as text, for WEFT_DEBUG=4."""
    if not config.wants(4):
        return ()
    program = lower_nest(tuple(exprs), tuple(p.layout for p in ins), tuple(p.layout for p in outs))
    return tuple(str(program).split("\n"))
