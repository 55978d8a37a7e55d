"""The numbers of an optimizer's update as Python arithmetic alone.

An update (Adam's, say) meets its ops with numbers that follow from settings and step counts:
`-(lr / (1 - beta1**step))`.  Run once on floats that note what is done to them, it leaves behind a
function of these few lines, which gives the same numbers in a microsecond, where running the update
on stand-ins takes seventy.  What was compared with what is noted too: another outcome, no answer.

Only updates of Weft's own optimizers are trusted to keep to arithmetic, and a float that reaches an
op unnoted must be the same for other settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_BINARY = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_UNARY = {"neg": "-", "pos": "+", "abs": "abs "}
_LOSING = (
    "int", "round", "trunc", "floor", "ceil", "hash", "floordiv", "rfloordiv", "mod", "rmod",
    "divmod", "rdivmod",
)  # fmt: skip
_NUDGE = 1 + 2.0**-10

Ask = Callable[[dict, dict], tuple[list, dict]]  # (settings, state) -> numbers, counters after
Formula = Callable[[dict, dict], tuple[list, dict] | None]


class Lost(Exception):
    """A number does not follow from the settings by arithmetic alone."""


class _Trace:
    """What is done to some floats, as lines of Python."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: list[Any] = []
        self.plain: list[float] = []  # floats that came from nowhere
        self.passed: dict[int, tuple[float, str]] = {}  # by id: what float(x) gave of a noted x

    def float(self, value: Any, text: str) -> Any:
        """The value of an expression, noted."""
        if type(value) is not float:
            raise Lost
        y = _Noted(value)
        y.trace, y.plain, y.name = self, value, f"t{len(self.lines)}"
        self.lines.append(f"{y.name} = {text}")
        return y

    def operand(self, x: Any) -> tuple[Any, str]:
        """(its value, its name) of a number."""
        if type(x) is _Noted:
            return x.plain, x.name
        self.constants.append(x)
        return x, f"constants[{len(self.constants) - 1}]"

    def inputs(self, settings: dict, name: str, nudge: Callable[[float], float]) -> dict:
        """The dict, its floats and those in tuples noted."""
        found = {}
        for k, v in settings.items():
            at = f"{name}[{k!r}]"
            if type(v) is float:
                v = self.float(nudge(v), at)
            elif type(v) is tuple and any(type(x) is float for x in v):
                v = tuple([
                    self.float(nudge(x), f"{at}[{i}]") if type(x) is float else x
                    for i, x in enumerate(v)
                ])  # fmt: skip
            found[k] = v
        return found

    def result(self, x: Any) -> str:
        if type(x) is float:
            if id(x) in self.passed:
                return self.passed[id(x)][1]
            self.plain.append(x)
        return self.operand(x)[1]


class _Noted(float):
    """A float that notes what is done to it; for who asks its class it is a float."""

    trace: _Trace
    plain: float
    name: str
    __class__ = property(lambda self: float)


def _binary(name: str, sign: str, *, turned: bool) -> Callable:
    ours = getattr(float, f"__{'r' if turned else ''}{name}__")

    def method(self: _Noted, other: Any) -> Any:
        if type(other) not in (int, float, bool, _Noted):
            return NotImplemented
        x, text = self.trace.operand(other)
        value = ours(self.plain, x)
        return self.trace.float(
            value, f"{text} {sign} {self.name}" if turned else f"{self.name} {sign} {text}"
        )

    return method


def _compare(name: str, sign: str) -> Callable:
    ours = getattr(float, f"__{name}__")

    def method(self: _Noted, other: Any) -> Any:
        if type(other) not in (int, float, bool, _Noted):
            return NotImplemented
        x, text = self.trace.operand(other)
        found = ours(self.plain, x)
        self.trace.lines.append(f"if ({self.name} {sign} {text}) is not {found}: return None")
        return found

    return method


def _unary(name: str, sign: str) -> Callable:
    def method(self: _Noted) -> Any:
        text = f"{sign.strip()}({self.name})"
        return self.trace.float(getattr(float, f"__{name}__")(self.plain), text)

    return method


def _true(self: _Noted) -> bool:
    found = self.plain != 0
    self.trace.lines.append(f"if bool({self.name}) is not {found}: return None")
    return found


def _as_float(self: _Noted) -> float:
    x = self.plain * 1.0  # an object of its own
    self.trace.passed[id(x)] = (x, self.name)
    return x


def _lost(*_: Any) -> Any:
    raise Lost


for _name, _sign in _BINARY.items():
    setattr(_Noted, f"__{_name}__", _binary(_name, _sign, turned=False))
    setattr(_Noted, f"__r{_name}__", _binary(_name, _sign, turned=True))
for _name, _sign in _COMPARE.items():
    setattr(_Noted, f"__{_name}__", _compare(_name, _sign))
for _name, _sign in _UNARY.items():
    setattr(_Noted, f"__{_name}__", _unary(_name, _sign))
for _name in _LOSING:
    setattr(_Noted, f"__{_name}__", _lost)
_Noted.__bool__ = _true
_Noted.__float__ = _as_float


def formula(update: Callable, ask: Ask, settings: dict, state: dict) -> Formula | None:
    """What `ask` gives as a function of a group's settings and a parameter's state; it gives None
    where another branch would be taken.  None: there is no such function.
    """
    module = getattr(update, "__module__", None) or ""
    if not module.startswith("weft.optim."):
        return None
    counters = {k: v for k, v in state.items() if type(v) is float}
    try:
        made, plain = _traced(ask, settings, counters, lambda x: x)
        wanted = ask(settings, counters)
        found = made(settings, counters)
        if plain and _traced(ask, settings, counters, lambda x: x * _NUDGE)[1] != plain:
            return None
    except Exception:  # whatever it does to a number, this is not for it
        return None
    return made if found is not None and _same(found, wanted) else None


def _traced(
    ask: Ask, settings: dict, counters: dict, nudge: Callable[[float], float]
) -> tuple[Formula, list[float]]:
    trace = _Trace()
    numbers, after = ask(
        trace.inputs(settings, "settings", nudge), trace.inputs(counters, "state", nudge)
    )
    given = ", ".join(trace.result(x) for x in numbers)
    kept = ", ".join(f"{k!r}: {trace.result(v)}" for k, v in after.items())
    body = "\n    ".join([*trace.lines, f"return [{given}], {{{kept}}}"])
    space: dict[str, Any] = {"constants": trace.constants}
    exec(f"def numbers(settings, state):\n    {body}\n", space)
    return space["numbers"], trace.plain


def _same(a: tuple[list, dict], b: tuple[list, dict]) -> bool:
    text = lambda x: [(type(v), repr(v)) for v in (*x[0], *x[1].values())]
    return text(a) == text(b) and list(a[1]) == list(b[1])
