"""A large module of LLVM IR as several small ones, which compile side by side.

Functions stay in their order, and a part ends when it is large enough: modules that begin with the
same functions (a register tile, a packer) then begin with the same parts, compiled once for all.
"""

import re
from functools import lru_cache

_ENOUGH = 24_000  # characters of a part: some 20 ms of code generation
_NAME = re.compile(r"@([\w.]+)")
_END = "\n}\n"
_DRIVER, _HEADS = ' "driver"', re.compile("^define .*", re.M)
_VARIABLE = re.compile(r"(@[\w.]+) = internal global (.+) (?:0|null|zeroinitializer)")


@lru_cache(4)
def split(ir_text: str) -> list[str]:
    """The parts, to link together: functions that were internal are hidden, constants that several
    parts read are in each, variables in the first. The text itself where it is small, or holds
    anything but declarations, internal constants and variables, then functions, then metadata.

    The linker may place parts further apart than code reaches (gigabytes lie between). So what a
    part takes from another is not declared hidden: its address is looked up in a table.
    """
    if len(ir_text) < 2 * _ENOUGH:
        return [ir_text]
    start = max(ir_text.find("define "), 0)
    *functions, metadata = ir_text[start:].split(_END)
    if not functions:
        return [ir_text]
    heads: dict[str, str] = {}  # what a part needs, by name
    variables: dict[str, str] = {}
    for line in ir_text[:start].splitlines():
        simple = line.startswith("declare ") or " = internal constant " in line
        if simple and line.count("@") == 1:
            heads[_name(line)] = line
        elif _VARIABLE.fullmatch(line):
            variables[_name(line)] = line.replace(" internal ", " hidden ", 1)
            heads[_name(line)] = _VARIABLE.sub(r"\1 = external global \2", line)
        elif line:
            return [ir_text]
    for i, given in enumerate(functions):
        text = given.lstrip("\n").replace("define internal ", "define hidden ", 1)
        first = text[: text.find(" {\n")]
        if not first.startswith("define "):
            return [ir_text]
        heads[_name(first)] = re.sub("^define (hidden )?", "declare ", first)
        functions[i] = text + _END
    groups: list[list[str]] = [[]]
    for text in functions:
        if groups[-1]:
            large = max(sum(map(len, groups[-1])), len(text)) >= _ENOUGH
            if large or is_driver(text) != is_driver(groups[-1][0]):
                groups.append([])
        groups[-1].append(text)
    parts: list[str] = []
    for i, group in enumerate(groups):
        body = "\n".join(group)
        used = set(_NAME.findall(body)) - set(map(_name, group))
        known = heads
        if i == 0:
            used, known = used.union(variables), {**heads, **variables}
        lines = [known[n] for n in sorted(used) if n in known]
        # the same text wherever it comes from: not with what only others of its module refer to
        parts.append("\n".join([*lines, body, metadata if "!" in body else "", ""]))
    return parts


def is_driver(text: str) -> bool:
    """Whether all functions of a part are drivers: kernels, or what these call, that do little but
    call others (`Function.driver`).
    """
    heads = _HEADS.findall(text)
    return bool(heads) and all(_DRIVER in head for head in heads)


def _name(text: str) -> str:
    """The first name in a text."""
    found = _NAME.search(text)
    if found is None:
        raise ValueError(f"no name in {text[:80]!r}")
    return found[1]
