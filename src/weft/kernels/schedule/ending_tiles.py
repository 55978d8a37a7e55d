"""Endings among products in tile registers: vectors' ports work while registers of tiles wait.

An ending that is called behind a tile's products is too far from the next ones for the processor
to run both at once. So the kernel of a tile holds the ending of earlier sums, too: some rows behind
each product. Where registers of tiles are not renamed (a neighbour has the core's other thread),
each product waits for the one before, and rows cost little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weft.kernels.target.llvm import Function, Operand, Value


@dataclass(frozen=True)
class Rows:
    """An ending of rows of results: places of the first one's arrays, and the code that finishes a
    row at such places and gives the next one's.
    """

    first: list[Value]
    one: Callable[[list[Value]], list[Value]]


Ending = Callable[[Function], Rows]


class Shares:
    """`rows` rows of an ending, in equal shares behind so many products; none if it is None.

    Its state is a row's number and places, `start` at first, for loops to carry.
    """

    def __init__(self, f: Function, ending: Ending | None, products: Operand):
        self.f, self.rows = f, ending(f) if ending else None
        self.start: list[tuple[str, Operand]] = []
        if self.rows:
            self.start = [("i64", 0), *((p.type, p) for p in self.rows.first)]
            self.each = f.div(f.add(f.arg("rows"), f.sub(products, 1)), products)

    def behind(self, state: Sequence[Value]) -> list[Value]:
        """Emit a product's share."""
        f, rows = self.f, self.rows
        if not rows:
            return []
        row, *places = state
        end = f.typed(f.min(f.add(row, self.each), f.arg("rows")), "i64")
        with f.loop(row, end, 1, [(p.type, p) for p in places]) as R:
            R.next = [*rows.one(R.carry)]
        return [end, *R.carry]


class Pending:
    """A tile's sums whose ending, the epilogue, waits for the next tile's products."""

    def __init__(self, f: Function, h: dict[str, Value], columns: int):
        self.f, self.fields = f, f.alloca("i64", 4)  # row, rows, column, columns
        self.columns, self.sums = columns, f.alloca("ptr", 1)
        self.epilogue, self.finish = (
            f.cast("inttoptr", h[n], "ptr") for n in ("epilogue", "finish")
        )
        self.finishes = f.icmp("ne", h["finish"], 0)
        self.ints = f.gep("%head", h["epilogue_at"], "i64")
        self.none()

    def none(self) -> None:
        self.f.store(self.f.typed(0, "i64"), self.f.gep(self.fields, 1, "i64"))

    def wait(self, sums: Value, *fields: Operand) -> None:
        f = self.f
        f.store(sums, self.sums)
        for i, value in enumerate(fields):
            f.store(f.typed(value, "i64"), f.gep(self.fields, i, "i64"))

    def whole(self) -> Value:
        """Whether a tile waits that another's products may hide."""
        f = self.f
        _, rows, _, columns = f.words(self.fields, 0, ["i64"] * 4)
        there = f.op("and", f.icmp("sgt", rows, 0), f.icmp("eq", columns, self.columns))
        return f.op("and", there, self.finishes)

    def among(self, two: Sequence[Operand], column: int) -> None:
        """End 32 columns among the products of `two` registers by two."""
        f = self.f
        row, rows, n0, _ = f.words(self.fields, 0, ["i64"] * 4)
        sums = f.gep(f.load("ptr", self.sums), 4 * column)
        own = f.arg("args"), self.ints, row, f.add(n0, column)
        f.call_at(self.finish, *two, *own, sums, rows)

    def end(self) -> None:
        """End all, if one waits."""
        f = self.f
        fields = f.words(self.fields, 0, ["i64"] * 4)
        with f.iff(f.icmp("sgt", fields[1], 0)):
            sums = f.load("ptr", self.sums)
            f.call_at(self.epilogue, f.arg("args"), self.ints, sums, self.columns, *fields)
