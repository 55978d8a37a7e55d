"""Graph from its text.  The text is data: a bad one raises ValueError with its line number."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from weft.core.dtype import BY_SHORT
from weft.core.graph import Graph, Node
from weft.core.op_text import parse_op
from weft.core.types import Dim, Type

_NAME = r"(?![\d.]+$)\w[\w.\-/]*"  # a module's "0.weight" too, but no number
_TYPE = re.compile(r"([a-z]+\d+)\[([^\]]*)\]$")
_DIM = re.compile(r"(?:(-?\d+)\*)?([A-Za-z_]\w*)([+-]\d+)?$")
_LONGEST = 64_000_000  # characters; past it a text is no graph


def parse(text: str) -> Graph:
    """The graph whose `to_text` is `text`.

    Types are taken as written; `core.graph.verify` checks those of a graph without symbols.
    ValueError: bad grammar, an unknown op, an operand used before it is defined.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"graph text of {len(text)} characters: more than {_LONGEST}")
    lines = text.strip().split("\n")
    names: dict[str, Node] = {}
    inputs = _inputs(lines[0], names)
    serial = len(inputs)
    sides: dict[int, str] = {}
    for at, line in enumerate(lines[1:-2], 2):
        number, type_text, op_text, operand_text, side = _parts(line.strip(), at)
        serial += 1
        op = _at(at, parse_op, op_text)
        operands = tuple(_operand(a, names, at) for a in _split(operand_text))
        node = Node(op, operands, _at(at, _type, type_text), "", serial)
        names[f"%{number}"] = node
        if side:
            sides[serial] = side
    return Graph(inputs, _outputs(lines, names), sides)


def _inputs(head: str, names: dict[str, Node]) -> list[Node]:
    m = re.match(r"graph \((.*)\) \{$", head)
    if m is None:
        raise ValueError(f"graph text, line 1: cannot read {head[:80]!r}")
    inputs = []
    for i, part in enumerate(_split(m.group(1))):
        name, _, type_text = part.partition(": ")
        if not re.fullmatch(_NAME, name) or name in names:
            raise ValueError(f"graph text, line 1: bad or repeated input name {name!r}")
        names[name] = Node(None, (), _at(1, _type, type_text), name, i + 1)
        inputs.append(names[name])
    return inputs


def _outputs(lines: list[str], names: dict[str, Node]) -> dict[str, Node]:
    if len(lines) < 3 or lines[-1].strip() != "}" or not lines[-2].strip().startswith("return "):
        raise ValueError("graph text: it does not end in `return ...` and `}`")
    outputs = {}
    for part in _split(lines[-2].strip()[len("return ") :]):
        key, _, value = part.partition("=")
        got = _operand(value, names, len(lines) - 1)
        if not isinstance(got, Node):
            raise ValueError(f"graph text: output {key!r} is a number")
        outputs[key] = got
    return outputs


def _at(line: int, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except (ValueError, TypeError) as e:
        raise ValueError(f"graph text, line {line}: {e}") from None


def _parts(line: str, at: int) -> tuple[str, str, str, str, str]:
    """Number, type, op, operands and side note of `%0: f32[3] = Op(k=1)(x, %1)  # model.py:41`."""
    head, _, rest = line.partition(": ")
    type_text, equals, call = rest.partition(" = ")
    attrs_end = _closing(call, call.find("("))
    args_end = _closing(call, attrs_end + 1)
    side = call[args_end + 1 :]
    if (
        not (head.startswith("%") and head[1:].isascii() and head[1:].isdigit() and equals)
        or min(attrs_end, args_end) < 0
        or not (side == "" or side.startswith("  # "))
    ):
        raise ValueError(f"graph text, line {at}: cannot read {line[:80]!r}")
    return head[1:], type_text, call[: attrs_end + 1], call[attrs_end + 2 : args_end], side[4:]


_BRACKET_OR_QUOTE = re.compile(r"[()'\"\\]")


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes, brackets in strings aside; -1 if nowhere."""
    if start < 0 or text[start : start + 1] != "(":
        return -1
    depth, quote, skip = 0, "", -1
    for m in _BRACKET_OR_QUOTE.finditer(text, start):
        c, i = m.group(), m.start()
        if i == skip:
            continue
        if quote:
            if c == "\\":
                skip = i + 1
            elif c == quote:
                quote = ""
        elif c in "'\"":
            quote = c
        else:
            depth += 1 if c == "(" else -1 if c == ")" else 0
            if depth == 0:
                return i
    return -1


def _split(text: str) -> list[str]:
    """Comma-separated parts, commas inside brackets aside."""
    parts: list[str] = []
    depth, start = 0, 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [p for p in parts if p]


def _operand(text: str, names: dict[str, Node], line: int) -> Node | float | int | bool:
    if text in names:
        return names[text]
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text) if re.search(r"[.einf]", text) else int(text)
    except ValueError:
        raise ValueError(f"graph text, line {line}: unknown operand {text!r}") from None


def _type(text: str) -> Type:
    m = _TYPE.match(text)
    if m is None or m.group(1) not in BY_SHORT:
        raise ValueError(f"not a type: {text!r}")
    dims = tuple(_dim(d) for d in m.group(2).split(",") if d)
    return Type(dims, BY_SHORT[m.group(1)])


def _dim(text: str) -> int | Dim:
    if re.fullmatch(r"\d+", text):
        return int(text)
    m = _DIM.match(text)
    if m is None:
        raise ValueError(f"not a dim: {text!r}")
    return Dim(m.group(2), int(m.group(1) or 1), int(m.group(3) or 0))
