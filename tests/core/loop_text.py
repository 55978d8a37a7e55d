"""The Loop IR's text read back: `parse(str(program)) == program`.  The grammar is in loop.py."""

from __future__ import annotations

import ast
from typing import NoReturn

from weft.core import dtype as D
from weft.core.loop import (
    INFIX,
    Accumulate,
    Alloc,
    Buffer,
    For,
    Index,
    Load,
    LoopError,
    Number,
    Program,
    Size,
    Stmt,
    Store,
    verify,
)
from weft.core.scalar import TABLE, Cast, Const, Expr, Scalar, Select

_OPERATORS = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv",
    ast.Mod: "rem", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.Lt: "lt",
    ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip
assert set(_OPERATORS.values()) == set(INFIX)


def parse(text: str) -> Program:
    """The program of a text; verified.  Raises LoopError with the line of what it cannot read."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise LoopError(f"line {error.lineno}: {error.msg}") from error
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise LoopError("a program is one def")
    return _Parser().program(tree.body[0])


class _Parser:
    def __init__(self) -> None:
        self.names: dict[str, D.dtype] = {}
        self.buffers: dict[str, D.dtype] = {}

    def fail(self, node: ast.AST, why: str) -> NoReturn:
        raise LoopError(f"line {getattr(node, 'lineno', 0)}: {why}")

    def program(self, f: ast.FunctionDef) -> Program:
        params: list[Buffer | Number] = []
        for a in f.args.args:
            if a.annotation is None:
                self.fail(a, f"{a.arg} has no dtype")
            params.append(self.param(a.arg, a.annotation))
        return verify(Program(f.name, tuple(params), self.block(f.body)))

    def dtype(self, node: ast.AST) -> D.dtype:
        if not isinstance(node, ast.Name) or node.id not in D.BY_SHORT:
            self.fail(node, f"expected a dtype, got {ast.unparse(node)}")
        return D.BY_SHORT[node.id]

    def param(self, name: str, node: ast.expr) -> Buffer | Number:
        if not isinstance(node, ast.Subscript):
            self.names[name] = self.dtype(node)
            return Number(name, self.names[name])
        self.buffers[name] = self.dtype(node.value)
        dims = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        shape: list[Size] = []
        strides: list[Size] = []
        for d in dims:
            if isinstance(d, ast.Slice):
                if d.lower is None or d.upper is None:
                    self.fail(node, f"{name}: a dim is size:stride")
                shape.append(self.size(d.lower))
                strides.append(self.size(d.upper))
            else:
                shape.append(self.size(d))
        if strides and len(strides) != len(shape):
            self.fail(node, f"{name}: strides for all dims or for none")
        return Buffer(name, self.buffers[name], tuple(shape), tuple(strides) or None)

    def size(self, node: ast.expr) -> Size:
        if isinstance(node, ast.Name):
            return node.id
        value = ast.literal_eval(node)
        if type(value) is not int:
            self.fail(node, f"a size is an int or a name, got {ast.unparse(node)}")
        return value

    def block(self, body: list[ast.stmt]) -> tuple[Stmt, ...]:
        made: list[Stmt] = []
        local: list[str] = []
        for s in body:
            if isinstance(s, ast.Pass):
                continue
            stmt = self.stmt(s)
            made.append(stmt)
            if isinstance(stmt, Alloc):
                local.append(stmt.buffer)
        for name in local:
            del self.buffers[name]
        return tuple(made)

    def stmt(self, s: ast.stmt) -> Stmt:
        if isinstance(s, ast.For):
            call = s.iter
            if not (isinstance(s.target, ast.Name) and isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Name) and call.func.id == "range"
                    and len(call.args) == 1):  # fmt: skip
                self.fail(s, "a loop is `for name in range(size)`")
            size = self.expr(call.args[0])
            shadowed = self.names.get(s.target.id)
            self.names[s.target.id] = D.int64
            body = self.block(s.body)
            del self.names[s.target.id]
            if shadowed is not None:
                self.names[s.target.id] = shadowed
            return For(s.target.id, size, body)
        if not isinstance(s, ast.Assign) or len(s.targets) != 1:
            self.fail(s, f"not a statement of the Loop IR: {ast.unparse(s)}")
        target = s.targets[0]
        if isinstance(target, ast.Name):
            return self.alloc(target.id, s.value)
        if not isinstance(target, ast.Subscript) or not isinstance(target.value, ast.Name):
            self.fail(s, f"cannot store to {ast.unparse(target)}")
        name = target.value.id
        if name not in self.buffers:
            self.fail(s, f"no buffer is named {name}")
        indices = self.indices(target)
        value = self.expr(s.value)
        cell = Load(name, self.buffers[name], indices)
        if isinstance(value, Scalar) and len(value.operands) == 2 and value.operands[0] is cell \
                and value.dtype is cell.dtype:  # fmt: skip
            return Accumulate(name, indices, value.name, value.operands[1])
        return Store(name, indices, value)

    def alloc(self, name: str, node: ast.expr) -> Alloc:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                and node.func.id == "alloc" and len(node.args) == 2):  # fmt: skip
            self.fail(node, f"{name} = alloc(dtype, size) expected")
        d, size = self.dtype(node.args[0]), self.size(node.args[1])
        if not isinstance(size, int):
            self.fail(node, f"{name}: alloc's size is a number")
        self.buffers[name] = d
        return Alloc(name, d, size)

    def indices(self, node: ast.Subscript) -> tuple[Expr, ...]:
        at = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return tuple(self.expr(i) for i in at)

    def expr(self, node: ast.expr) -> Expr:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Const(node.value, D.int64)
        if isinstance(node, ast.Name):
            if node.id not in self.names:
                self.fail(node, f"{node.id} is not bound")
            return Index(node.id, self.names[node.id])
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            name = node.value.id
            if name not in self.buffers:
                self.fail(node, f"no buffer is named {name}")
            return Load(name, self.buffers[name], self.indices(node))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            if isinstance(node.operand, ast.Constant):
                return Const(-node.operand.value, D.int64)  # type: ignore[operator]
            return Scalar("neg", (self.expr(node.operand),))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return self.scalar(node, _OPERATORS[type(node.op)], (node.left, node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            name = _OPERATORS.get(type(node.ops[0]), "")
            return self.scalar(node, name, (node.left, node.comparators[0]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.call(node, node.func.id)
        return self.fail(node, f"not an expression of the Loop IR: {ast.unparse(node)}")

    def scalar(self, node: ast.AST, name: str, args: tuple[ast.expr, ...]) -> Expr:
        try:
            return Scalar(name, tuple(self.expr(a) for a in args))
        except (TypeError, KeyError) as error:
            self.fail(node, str(error))

    def call(self, node: ast.Call, name: str) -> Expr:
        if name in D.BY_SHORT and len(node.args) == 1:
            try:
                value = ast.literal_eval(node.args[0])
            except ValueError:
                return Cast(self.expr(node.args[0]), D.BY_SHORT[name])
            return Const(float(value) if isinstance(value, str) else value, D.BY_SHORT[name])
        if name == "where":
            return Select(*(self.expr(a) for a in node.args))
        if name not in TABLE:
            self.fail(node, f"no scalar is named {name}")
        return self.scalar(node, name, tuple(node.args))
