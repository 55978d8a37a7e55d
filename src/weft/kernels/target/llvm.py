"""A builder of textual LLVM IR, small enough to read in one sitting.

    m = Module()
    f = m.function("scale", [("ptr", "args"), ("i32", "tid"), ("i32", "nth")])
    out, x, n = f.load("ptr", f.gep("%args", 2, "i64")), ...
    with f.loop(0, n, 16) as L:
        v = f.load("<16 x float>", f.gep(x, L.i, "float"), align=4)
        f.store(f.op("fmul", v, 2.0), f.gep(out, L.i, "float"), align=4)
    f.ret()
    address = native.load(m.text(), ["scale"])["scale"]

Values are `Value`s: strings (`"%t7"`, `"zeroinitializer"`) that know their LLVM type. Wherever a
value is wanted a Python number may stand: an int is an i64 unless the other operand says otherwise,
a float takes the other operand's type. i64 arithmetic (`add sub mul div rem min max`) on Python
ints is done at once, so one generator serves sizes that are known and sizes that come at run time.

Loops are rotated (guard, then do-while): LLVM's code generator without its pass pipeline then gives
the same speed as with it, in a fifth of the compile time. Nothing runs LLVM's optimiser after this
builder, so: keep values in loop carries rather than in memory, hoist what does not change, and do
not emit what is not used.

Long because it is one vocabulary: whoever writes a kernel finds every word here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import NamedTuple, TypeVar

from weft.kernels.target.llvm_types import (
    BYTES,
    FLOAT_TYPES,
    INT_TYPES,
    Operand,
    Value,
    const,
    element_of,
    lane_numbers,
    lanes_of,
    mangle,
    vector,
    with_element,
    zero,
)
from weft.runtime.native import host

__all__ = [
    "BYTES", "FLOAT_TYPES", "INT_TYPES", "Branches", "Function", "Loop", "Module", "Operand",
    "Value", "const", "element_of", "lane_numbers", "lanes_of", "mangle", "vector", "with_element",
    "zero",
]  # fmt: skip

T = TypeVar("T")


class Loop:
    """What `Function.loop` yields: the counter, the carried values, and where the next ones go.

    Inside the loop `carry[k]` is the value at the start of an iteration; assign `next[k]`. After
    the loop `carry[k]` is the final value (the initial one when the loop ran zero times).
    """

    def __init__(self, i: Value, carry: list[Value]):
        self.i = i
        self.carry = carry
        self.next: list[Operand] = list(carry)


class Reader:
    """Takes the words of a block one after the other, from word `at`."""

    def __init__(self, f: "Function", pointer: Operand, at: int):
        self.f = f
        self.pointer = pointer
        self.at = at

    def take(self, count: int, type: str = "i64") -> list[Value]:
        self.at += count
        return self.f.words(self.pointer, self.at - count, [type] * count)


class Function:
    """One function under construction; made by `Module.function`."""

    def __init__(
        self,
        module: "Module",
        name: str,
        args: Sequence[tuple[str, str]],
        returns: str,
        internal: bool,
        driver: bool = False,
    ):
        self.module = module
        self.name = name
        self.signature = list(args)
        self.returns = returns
        self.internal = internal
        self.driver = driver
        self.lines: list[str] = []
        self.block = "entry"
        self._allocas: list[str] = []
        self._count = 0
        self._args = {
            n: Value("%" + n, t.split()[0] if not t.startswith("<") else t) for t, n in args
        }

    def arg(self, name: str) -> Value:
        """The argument of that name."""
        return self._args[name]

    # -- lines and blocks

    def emit(self, type: str, text: str) -> Value:
        """Append `%new = text` and return it as a value of the type."""
        self._count += 1
        value = Value(f"%t{self._count}", type)
        self.lines.append(f"  {value} = {text}")
        return value

    def line(self, text: str) -> None:
        """Append an instruction that gives no value."""
        self.lines.append("  " + text)

    def label(self, hint: str = "b") -> str:
        """A new label, not yet placed."""
        self._count += 1
        return f"{hint}{self._count}"

    def at(self, label: str) -> None:
        """Start the block `label`; the one before must have ended in a branch."""
        self.lines.append(label + ":")
        self.block = label

    def branch(self, label: str) -> None:
        self.line(f"br label %{label}")

    def branch_if(self, condition: Operand, then: str, otherwise: str) -> None:
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}")

    def ret(self, value: Operand | None = None) -> None:
        self.line(
            "ret void" if value is None else f"ret {self.returns} {self.typed(value, self.returns)}"
        )

    def woven(self, bodies: Iterable[Callable[[], T]]) -> list[T]:
        """What the bodies give, their instructions in turns where they do not branch: a core looks
        ahead as far as some 100 waiting instructions, a few vectors of a long formula.
        """
        found: list[T] = []
        pieces: list[list[str]] = []
        for body in bodies:
            start = len(self.lines)
            found.append(body())
            pieces.append(self.lines[start:])
            del self.lines[start:]
        if any(line.endswith(":") for piece in pieces for line in piece):
            self.lines += [line for piece in pieces for line in piece]
        else:
            self.lines += [
                line for turn in zip_longest(*pieces, fillvalue="") for line in turn if line
            ]
        return found

    # -- values

    def typed(self, value: Operand, type: str) -> Value:
        """A Python number as a constant of the type; other values unchanged."""
        if isinstance(value, Value):
            return value
        if isinstance(value, str):
            return self._args.get(value[1:], Value(value, type))
        return const(type, value)

    def _type(self, *values: Operand) -> str:
        for value in values:
            if isinstance(value, str):
                return value.type if isinstance(value, Value) else self._args[value[1:]].type
        return "i64" if all(isinstance(v, int) for v in values) else "double"

    def op(self, name: str, a: Operand, b: Operand, flags: str = "") -> Value:
        """A two-operand instruction on equal types: `fadd fsub fmul fdiv frem add sub mul and or
        xor shl lshr ashr ...`.
        """
        type = self._type(a, b)
        return self.emit(type, f"{name}{flags} {type} {self.typed(a, type)}, {self.typed(b, type)}")

    def neg(self, a: Operand) -> Value:
        """-a of a float type (flips the sign bit, nan included)."""
        return self.emit(self._type(a), f"fneg {self._type(a)} {a}")

    def icmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """Integer or pointer comparison: `eq ne slt sle sgt sge ult ule ugt uge`; gives i1."""
        type = self._type(a, b)
        return self.emit(
            with_element(type, "i1"),
            f"icmp {predicate} {type} {self.typed(a, type)}, {self.typed(b, type)}",
        )

    def fcmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """Float comparison: `oeq une olt ole ogt oge uno ord ...`; gives i1 lanes."""
        type = self._type(a, b)
        return self.emit(
            with_element(type, "i1"),
            f"fcmp {predicate} {type} {self.typed(a, type)}, {self.typed(b, type)}",
        )

    def select(self, condition: Operand, a: Operand, b: Operand) -> Value:
        """a where the condition holds, else b; the condition is i1 or one i1 a lane."""
        type = self._type(a, b)
        test = self._type(condition)
        return self.emit(
            type,
            f"select {test} {condition}, {type} {self.typed(a, type)}, "
            f"{type} {self.typed(b, type)}",
        )

    def cast(self, name: str, value: Operand, to: str) -> Value:
        """A conversion: `sext zext trunc fpext fptrunc sitofp uitofp fptosi fptoui bitcast ptrtoint
        inttoptr`.
        """
        source = self._type(value)
        return (
            self.typed(value, to)
            if source == to
            else self.emit(to, f"{name} {source} {value} to {to}")
        )

    def splat(self, value: Operand, type: str) -> Value:
        """The scalar in every lane of the vector type."""
        if not isinstance(value, str) or lanes_of(type) == 1:
            return self.typed(value, type)
        lanes, element = lanes_of(type), element_of(type)
        one = self.emit(type, f"insertelement {type} poison, {element} {value}, i32 0")
        return self.emit(
            type, f"shufflevector {type} {one}, {type} poison, <{lanes} x i32> zeroinitializer"
        )

    def extract(self, value: Value, lane: int) -> Value:
        """One lane of a vector."""
        return self.emit(element_of(value.type), f"extractelement {value.type} {value}, i32 {lane}")

    def insert(self, value: Value, scalar: Operand, lane: int) -> Value:
        """The vector with one lane replaced."""
        element = element_of(value.type)
        return self.emit(
            value.type,
            f"insertelement {value.type} {value}, "
            f"{element} {self.typed(scalar, element)}, i32 {lane}",
        )

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes picked from a then b (indices from 0 to twice the width)."""
        type = vector(len(lanes), element_of(a.type))
        picks = ", ".join(f"i32 {i}" for i in lanes)
        return self.emit(
            type, f"shufflevector {a.type} {a}, {a.type} {b}, <{len(lanes)} x i32> <{picks}>"
        )

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """The columns of a square of vectors, in log2(lanes) rounds of shuffles; round h swaps bit
        h of row and lane.
        """
        lanes, half = len(rows), 1
        out = list(rows)
        while half < lanes:
            for i in range(lanes):
                if not i & half:
                    a, b = out[i], out[i | half]
                    low = [q if not q & half else lanes + (q ^ half) for q in range(lanes)]
                    high = [q | half if not q & half else lanes + q for q in range(lanes)]
                    out[i], out[i | half] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            half *= 2
        return out

    # -- i64 arithmetic, folded when the operands are known

    def _fold(self, name: str, a: Operand, b: Operand) -> Operand:
        if isinstance(a, int) and isinstance(b, int):
            if name in ("udiv", "urem"):
                return a // b if name == "udiv" else a % b
            return {"add": a + b, "sub": a - b, "mul": a * b}[name]
        if (name in ("mul", "udiv") and b == 1) or (name in ("add", "sub") and b == 0):
            return a
        if (name == "add" and a == 0) or (name == "mul" and a == 1):
            return b
        if (name == "mul" and (a == 0 or b == 0)) or (name == "urem" and b == 1):
            return 0
        return self.emit(
            "i64", f"{name}{' nsw' if name in ('add', 'sub', 'mul') else ''} i64 {a}, {b}"
        )

    def add(self, a: Operand, b: Operand) -> Operand:
        return self._fold("add", a, b)

    def sub(self, a: Operand, b: Operand) -> Operand:
        return self._fold("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Operand:
        return self._fold("mul", a, b)

    def div(self, a: Operand, b: Operand) -> Operand:
        """a // b of non-negative i64."""
        return self._fold("udiv", a, b)

    def rem(self, a: Operand, b: Operand) -> Operand:
        """a % b of non-negative i64."""
        return self._fold("urem", a, b)

    def min(self, a: Operand, b: Operand) -> Operand:
        known = isinstance(a, int) and isinstance(b, int)
        return min(a, b) if known else self.intrinsic("smin", "i64", a, b)

    def max(self, a: Operand, b: Operand) -> Operand:
        known = isinstance(a, int) and isinstance(b, int)
        return max(a, b) if known else self.intrinsic("smax", "i64", a, b)

    # -- memory

    def gep(self, pointer: Operand, index: Operand, element: str = "i8") -> Value:
        """The address `pointer + index * sizeof(element)`."""
        if isinstance(index, int) and index == 0:
            return self.typed(pointer, "ptr")
        return self.emit("ptr", f"getelementptr inbounds {element}, ptr {pointer}, i64 {index}")

    def frozen(self, value: Value) -> Value:
        """The value, of which LLVM no longer knows how far it is from others."""
        return self.emit(value.type, f"freeze {value.type} {value}")

    def touch(self, place: Value, *, level: int = 1, write: bool = False) -> None:
        """Bring a cache line to the first or second cache before it is wanted."""
        how = (str(int(write)), str(4 - level), "1")
        self.intrinsic("prefetch", "void", place, *(Value(t, "i32") for t in how))

    def load(self, type: str, pointer: Operand, align: int | None = None, meta: str = "") -> Value:
        """A load; `align` defaults to the element's size, which any array has."""
        align = BYTES[element_of(type)] if align is None else align
        return self.emit(type, f"load {type}, ptr {pointer}, align {align}{meta}")

    def store(
        self, value: Value, pointer: Operand, align: int | None = None, *, stream: bool = False
    ) -> None:
        """A store; `stream` bypasses the caches (the address must then be aligned to the vector,
        and `align` say so).
        """
        align = BYTES[element_of(value.type)] if align is None else align
        meta = f", !nontemporal !{self.module.nontemporal()}" if stream else ""
        self.line(f"store {value.type} {value}, ptr {pointer}, align {align}{meta}")

    def masked_load(
        self, type: str, pointer: Operand, mask: Value, otherwise: Operand | None = None
    ) -> Value:
        """Lanes whose mask is set are loaded, others are `otherwise` (zero) and not touched."""
        align = Value(str(BYTES[element_of(type)]), "i32")
        rest = zero(type) if otherwise is None else self.typed(otherwise, type)
        return self.intrinsic("masked.load", type, self.typed(pointer, "ptr"), align, mask, rest)

    def masked_store(self, value: Value, pointer: Operand, mask: Value) -> None:
        """Lanes whose mask is set are stored; the memory of others is not touched."""
        align = Value(str(BYTES[element_of(value.type)]), "i32")
        self.intrinsic("masked.store", "void", value, self.typed(pointer, "ptr"), align, mask)

    def lane_mask(self, count: Operand, lanes: int) -> Value:
        """`<lanes x i1>` whose first `count` lanes are set; any count (below 0 is none, above
        `lanes` is all).
        """
        type = vector(lanes, "i32")
        few = self.min(self.max(count, 0), lanes)
        width = (
            self.cast("trunc", self.typed(few, "i64"), "i32")
            if isinstance(few, str)
            else Value(str(few), "i32")
        )
        return self.icmp("slt", lane_numbers(type), self.splat(width, type))

    def alloca(self, type: str, count: int = 1, align: int = 64) -> Value:
        """Room on the stack, in the entry block; for small fixed tables only."""
        self._count += 1
        value = Value(f"%t{self._count}", "ptr")
        self._allocas.append(f"  {value} = alloca {type}, i64 {count}, align {align}")
        return value

    def words(self, pointer: Operand, start: int, types: Iterable[str]) -> list[Value]:
        """Consecutive 8-byte words of a block, from word `start`, each loaded as its type (`i64 ptr
        double i32 ...`).
        """
        return [self.load(t, self.gep(pointer, start + i, "i64"), 8) for i, t in enumerate(types)]

    def named(self, pointer: Operand, names: Sequence[str], start: int = 0) -> dict[str, Value]:
        """Consecutive ints of a block, from word `start`, by their names."""
        return dict(zip(names, self.words(pointer, start, ["i64"] * len(names)), strict=True))

    def given(
        self, inputs: int, names: Sequence[str]
    ) -> tuple[list[Value], Value, dict[str, Value], Value]:
        """A kernel's (out, inputs...), its scratch, its named ints, where the other ints start."""
        *pointers, scratch = self.words(self.arg("args"), 2, ["ptr"] * (2 + inputs))
        ints = self.gep(self.arg("args"), 4 + inputs, "i64")
        return pointers, scratch, self.named(ints, names), self.gep(ints, len(names), "i64")

    def coordinates(self, flat: Operand, sizes: Sequence[Operand]) -> list[Operand]:
        """The coordinates of a flat index over the sizes."""
        coords: list[Operand] = []
        for n in reversed(sizes[1:]):
            coords.append(self.rem(flat, n))
            flat = self.div(flat, n)
        return [flat, *reversed(coords)] if sizes else []

    # -- calls

    def call(self, name: str, returns: str, *args: Operand) -> Value:
        """Call a function of this module, or one declared with `Module.declare`."""
        typed = [self.typed(a, self._type(a)) for a in args]
        text = f"call {returns} @{name}({', '.join(f'{a.type} {a}' for a in typed)})"
        if returns == "void":
            self.line(text)
            return Value("", "void")
        return self.emit(returns, text)

    def call_at(self, address: Value, *args: Operand) -> None:
        """Call the function without result that lies at an address."""
        typed = [self.typed(a, self._type(a)) for a in args]
        self.line(f"call void {address}({', '.join(f'{a.type} {a}' for a in typed)})")

    def intrinsic(
        self, name: str, returns: str, *args: Operand, overload: Sequence[str] | None = None
    ) -> Value:
        """Call `@llvm.<name>.<overload>`, declaring it once.

        `f.intrinsic("fma", type, a, b, c)`. The overload types are derived for the common families;
        give them otherwise. Python numbers become constants of the result type (i64 when the result
        is void).
        """
        scalar = returns if returns != "void" else "i64"
        typed = [self.typed(a, scalar) for a in args]
        suffix = _overload(name, returns, typed) if overload is None else overload
        full = "llvm." + ".".join([name, *(mangle(t) for t in suffix)])
        self.module.declare(full, returns, [a.type for a in typed])
        return self.call(full, returns, *typed)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a * b + c with one rounding. Slow (a library call) on hosts without fma: ask
        `native.host().has_fma`.
        """
        type = self._type(a, b, c)
        return self.intrinsic("fma", type, a, b, c)

    # -- control flow

    @contextmanager
    def loop(
        self,
        start: Operand,
        stop: Operand,
        step: Operand = 1,
        carry: Sequence[tuple[str, Operand]] = (),
    ) -> Iterator[Loop]:
        """for i in range(start, stop, step), step > 0; `carry` is a list of (type, initial value).
        See `Loop`.
        """
        before, body, last, after = (self.label(h) for h in ("pre", "loop", "latch", "done"))
        self.branch(before)
        self.at(before)
        first = [self.typed(v, t) for t, v in carry]
        self.branch_if(self.emit("i1", f"icmp slt i64 {start}, {stop}"), body, after)
        self.at(body)
        place = len(self.lines)
        values = [
            Value(f"%t{self._count + 1 + k}", t)
            for k, t in enumerate(["i64", *(t for t, _ in carry)])
        ]
        self._count += len(values)
        self.lines += [""] * len(values)
        loop = Loop(values[0], values[1:])
        yield loop
        following = self.emit("i64", f"add nsw i64 {loop.i}, {step}")
        self.branch(last)
        self.at(last)
        self.branch_if(self.emit("i1", f"icmp slt i64 {following}, {stop}"), body, after)
        after_values = [self.typed(v, t) for v, (t, _) in zip(loop.next, carry, strict=True)]
        self.lines[place] = f"  {loop.i} = phi i64 [{start}, %{before}], [{following}, %{last}]"
        for k, (type, _) in enumerate(carry):
            self.lines[place + 1 + k] = (
                f"  {values[1 + k]} = phi {type} "
                f"[{first[k]}, %{before}], [{after_values[k]}, %{last}]"
            )
        self.at(after)
        loop.carry = [
            self.emit(type, f"phi {type} [{first[k]}, %{before}], [{after_values[k]}, %{last}]")
            for k, (type, _) in enumerate(carry)
        ]

    @contextmanager
    def iff(self, condition: Operand) -> Iterator[None]:
        """Run the block when the condition (i1) holds."""
        then, after = self.label("then"), self.label("end")
        self.branch_if(condition, then, after)
        self.at(then)
        yield
        self.branch(after)
        self.at(after)

    @contextmanager
    def if_else(self, condition: Operand) -> Iterator["Branches"]:
        """Two ways: `with f.if_else(c) as b: ...; b.otherwise(); ...`; see `Branches` for values
        that leave it.
        """
        branches = Branches(self)
        self.branch_if(condition, branches.labels[0], branches.labels[1])
        self.at(branches.labels[0])
        yield branches
        branches.close()

    def switch(self, value: Operand, cases: Iterable[int], default: int) -> "Iterator[int]":
        """`for case in f.switch(v, [1, 2], default=3): emit the code of that case`; the default may
        be a further case.
        """
        every = list(dict.fromkeys([*cases, default]))
        labels = {c: self.label("case") for c in every}
        after = self.label("end")
        table = " ".join(f"i64 {c}, label %{labels[c]}" for c in every if c != default)
        self.line(f"switch i64 {value}, label %{labels[default]} [ {table} ]")
        for case in every:
            self.at(labels[case])
            yield case
            self.branch(after)
        self.at(after)

    def phi(self, type: str, sources: Sequence[tuple[Operand, str]]) -> Value:
        """A value by the block we came from: [(value, label)]. Must be first in its block."""
        return self.emit(
            type, f"phi {type} " + ", ".join(f"[{self.typed(v, type)}, %{b}]" for v, b in sources)
        )

    def thread(self, name: str = "tid") -> Value:
        """The number of this thread; with "nth" how many there are."""
        return self.cast("sext", self.arg(name), "i64")

    def split(self, total: Operand, unit: int = 1) -> tuple[Operand, Operand]:
        """This thread's part [from, to) of `range(total)`, cut at multiples of `unit`; reads
        arguments `tid` and `nth`.
        """
        tid, nth = self.thread(), self.thread("nth")
        units = self.div(self.add(total, unit - 1), unit)
        first = self.mul(self.div(self.mul(units, tid), nth), unit)
        last = self.mul(self.div(self.mul(units, self.add(tid, 1)), nth), unit)
        return (first, last) if unit == 1 else (self.min(first, total), self.min(last, total))

    @contextmanager
    def units(self, total: Operand) -> Iterator[Value]:
        """For each unit of `range(total)` that this thread gets; reads argument `args`.

        Threads take the next from a counter, word 1 of the block: it is 0 when a launch starts, and
        read as a detail only after an error. So one stage of a launch may do this, one that reports
        no errors.
        """
        counter = self.gep(self.arg("args"), 1, "i64")
        take, body, after = (self.label(h) for h in ("take", "unit", "done"))
        self.branch(take)
        self.at(take)
        unit = self.emit("i64", f"atomicrmw add ptr {counter}, i64 1 monotonic")
        self.branch_if(self.emit("i1", f"icmp slt i64 {unit}, {total}"), body, after)
        self.at(body)
        yield unit
        self.branch(take)
        self.at(after)

    @contextmanager
    def slices(self, total: Operand, most: Operand) -> Iterator["Slice"]:
        """As `units`, but that the last unit of each thread comes in `most` slices, which others
        may take: none waits long for another, and a thread's next slice is mostly of the same unit.
        """
        nth = self.cast("sext", self.arg("nth"), "i64")
        count = self.select(self.icmp("sgt", nth, 1), most, 1)
        early = self.max(self.sub(total, nth), 0)
        last = self.sub(total, early)
        with self.units(self.add(early, self.mul(last, count))) as drawn:
            entire, late = self.icmp("slt", drawn, early), self.max(self.sub(drawn, early), 0)
            low = self.select(entire, 0, self.div(late, last))
            high = self.select(entire, count, self.add(low, 1))

            def unit_of(number: Operand) -> Value:
                late = self.add(early, self.rem(self.max(self.sub(number, early), 0), last))
                return self.select(self.icmp("slt", number, early), number, late)

            yield Slice(unit_of(drawn), low, high, count, unit_of(self.unit_after()))

    def apart(self, number: Operand, total: Operand) -> Value:
        """The unit that `number` stands for, where units of `range(total)` are dealt out such that
        two threads do not write side by side at a time: the hardware fetches lines beyond those
        that are written, and takes them from the other thread.
        """
        nth = self.cast("sext", self.arg("nth"), "i64")
        pile, at = self.rem(number, nth), self.div(number, nth)
        each, rest = self.div(total, nth), self.rem(total, nth)
        return self.typed(self.add(self.add(self.mul(pile, each), self.min(pile, rest)), at), "i64")

    def own_first(self, number: Operand, mine: Operand, total: Operand) -> Value:
        """What a thread does as its unit number `mine` of `total`: one of two threads every second,
        whatever the other's speed, then the other's from the last on; else `number`, as drawn. With
        `apart` it mostly reads what it wrote itself in the launch before.
        """
        own = self.add(self.mul(mine, 2), self.thread())
        late = self.sub(self.sub(self.mul(total, 2), 1), own)
        own = self.select(self.icmp("slt", own, total), own, late)
        two = self.icmp("eq", self.arg("nth"), 2)
        return self.typed(self.select(two, own, number), "i64")

    def unit_after(self) -> Value:
        """Inside `units`: which one this thread probably gets next (perhaps none), if
        the others take one each meanwhile.
        """
        counter = self.gep(self.arg("args"), 1, "i64")
        drawn = self.emit("i64", f"load atomic i64, ptr {counter} monotonic, align 8")
        others = self.sub(self.cast("sext", self.arg("nth"), "i64"), 1)
        return self.typed(self.add(drawn, others), "i64")

    def text(self) -> str:
        """The function's definition."""
        args = ", ".join(f"{t} %{n}" for t, n in self.signature)
        linkage = "internal " if self.internal else ""
        body = "\n".join([*self._allocas, *self.lines])
        head = f"define {linkage}{self.returns} @{self.name}({args}) {self.module.attributes}"
        head += ' "driver"' * self.driver
        return f"{head} {{\nentry:\n{body}\n}}\n"


class Branches:
    """The two sides of an `if_else`; `merge` after it joins one value from each side."""

    def __init__(self, function: Function):
        self.function = function
        self.labels = [function.label(h) for h in ("then", "else", "end")]
        self.ends: list[str] = []

    def otherwise(self) -> None:
        """End the first side, start the second."""
        self.ends.append(self.function.block)
        self.function.branch(self.labels[2])
        self.function.at(self.labels[1])

    def close(self) -> None:
        if not self.ends:
            self.otherwise()
        self.ends.append(self.function.block)
        self.function.branch(self.labels[2])
        self.function.at(self.labels[2])

    def merge(self, type: str, then: Operand, otherwise: Operand) -> Value:
        """`then` if the first side ran, `otherwise` if the second did. Call it after the `with`."""
        return self.function.phi(type, [(then, self.ends[0]), (otherwise, self.ends[1])])


class Slice(NamedTuple):
    """Slices [low, high) of `count` that a unit has, and the unit that probably comes after."""

    unit: Operand
    low: Operand
    high: Operand
    count: Operand
    after: Operand

    def of(self, f: Function, total: Operand) -> tuple[Operand, Operand]:
        """Their share [from, to) of so many."""
        low, high = (f.div(f.mul(total, n), self.count) for n in (self.low, self.high))
        return low, high


class Module:
    """Functions, globals and the declarations they need.

    `vector_bits` is the widest vector used, if it is not the host's (attributes that keep LLVM from
    cutting it in halves).
    """

    def __init__(self, vector_bits: int = 0):
        bits = vector_bits or host().vector_bits
        widths = (f'"{rule}-vector-width"="{bits}"' for rule in ("min-legal", "prefer"))
        self.attributes = " ".join(["nounwind", *widths])
        self.functions: list[Function] = []
        self.globals: list[str] = []
        self._declared: dict[str, str] = {}
        self._nontemporal = False

    def function(
        self,
        name: str,
        args: Sequence[tuple[str, str]],
        returns: str = "void",
        *,
        internal: bool = False,
        driver: bool = False,
    ) -> Function:
        """A new function; args are (type and attributes, name): `("ptr noalias", "a")`. A `driver`
        calls those that compute: its first code is made in haste (`machine`). A module that has
        drivers exports kernels only.
        """
        function = Function(self, name, args, returns, internal, driver)
        self.functions.append(function)
        return function

    def kernel(self, name: str, *, driver: bool = False) -> Function:
        """A function of the kernel ABI: `void name(ptr args, i32 tid, i32 nth)`."""
        args = [("ptr", "args"), ("i32", "tid"), ("i32", "nth")]
        return self.function(name, args, driver=driver)

    def declare(self, name: str, returns: str, args: Sequence[str]) -> None:
        """Declare an outside function (an intrinsic, or a symbol of the process)."""
        self._declared[name] = f"declare {returns} @{name}({', '.join(args)})"

    def nontemporal(self) -> int:
        self._nontemporal = True
        return 0

    def text(self) -> str:
        """The whole module; equal generators give equal text, which is the key of the cache."""
        meta = ["!0 = !{i32 1}"] if self._nontemporal else []
        parts = [
            *sorted(self._declared.values()),
            *self.globals,
            *(f.text() for f in self.functions),
            *meta,
        ]
        return "\n".join(parts) + "\n"


def _overload(name: str, returns: str, args: Sequence[Value]) -> list[str]:
    """The types in an intrinsic's mangled name, for the families that kernels use."""
    if name.startswith(("x86.", "aarch64.")):
        return []
    if name.startswith("vector.reduce."):
        return [args[-1].type]
    if name == "masked.load":
        return [returns, "ptr"]
    if name == "masked.store":
        return [args[0].type, "ptr"]
    if name == "prefetch":
        return ["ptr"]
    if name == "memcpy":
        return ["ptr", "ptr", "i64"]
    if name == "memset":
        return ["ptr", "i64"]
    return [returns]
