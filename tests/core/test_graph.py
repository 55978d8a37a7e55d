"""The Graph: text, verifier, interpreter, and programs held to the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.core.graph_interp import interpret
from weft.compile.passes import run_passes
from weft.compile.program import Program
from weft.compile.trace import trace
from weft.core import dtype as dt
from weft.core.graph import Builder, Graph, Node, to_text, verify
from weft.core.graph_text import parse
from weft.core.types import Type
from weft.kernels.layout import Layout
from weft.ops.arithmetic import Add
from weft.ops.contract import MatMul

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def conv_net(x):
    w, b = weft.tensor(array(4, 2, 3, 3)), weft.tensor(array(4))
    y = F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2)
    return F.log_softmax(y.flatten(1)[:, :7] * 1.5, 1)


def attention(x):
    q = x.reshape(2, 2, 6, 12)
    y = F.scaled_dot_product_attention(q, q, q * 0.5)
    return F.layer_norm(F.gelu(y).permute(0, 2, 1, 3).reshape(2, 6, 24), (24,))


def pieces(x):
    parts = x.chunk(2, 2)
    y = weft.cat([parts[1].exp(), weft.where(parts[0] > 0, parts[0], 0.5)], 2)
    return y.sum((0, 2)), y.amax(1), y.cumsum(3).argmax(3)


@pytest.mark.parametrize("fn", [conv_net, attention, pieces])
def test_programs_are_held_to_the_interpreter(fn):
    x = array(2, 2, 6, 12)
    made = trace(fn, {"x": weft.from_numpy(x)})
    values = {"x": x, **{k: t.detach().numpy() for k, t in made.captured.items()}}
    graph = run_passes(made.graph)
    verify(graph)
    meant = interpret(graph, values)
    layouts = {k: Layout.of(a) for k, a in values.items()}
    got = Program(made.graph, layouts).run(values)
    assert got.keys() == meant.keys()
    for k in got:
        np.testing.assert_allclose(got[k], meant[k], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("fn", [conv_net, attention, pieces])
def test_text_reads_back(fn):
    text = to_text(trace(fn, {"x": weft.from_numpy(array(2, 2, 6, 12))}).graph)
    assert to_text(parse(text)) == text


def test_equal_nodes_are_one():
    b = Builder()
    x = b.input("x", Type((3,), dt.float32))
    assert b.node(Add(), x, x) is b.node(Add(), x, x)
    assert b.node(Add(), x, 1.0) is not b.node(Add(), x, 2.0)


def test_the_verifier_refuses_a_wrong_type_and_an_undeclared_input():
    b = Builder()
    x = b.input("x", Type((3,), dt.float32))
    wrong = Node(Add(), (x, x), Type((4,), dt.float32), "", 9)
    with pytest.raises(ValueError, match=r"should have type f32\[3\]"):
        verify(Graph([x], {"y": wrong}))
    with pytest.raises(ValueError, match="not declared"):
        verify(Graph([], {"y": b.node(Add(), x, x)}))


def test_operands_that_do_not_fit_are_refused_when_the_node_is_made():
    b = Builder()
    x = b.input("x", Type((3, 4), dt.float32))
    with pytest.raises(RuntimeError, match="3x4 and 3x4"):
        b.node(MatMul(), x, x)


def test_the_interpreter_names_an_input_without_a_value():
    b = Builder()
    x = b.input("x", Type((3,), dt.float32))
    with pytest.raises(KeyError, match="x"):
        interpret(Graph([x], {"y": b.node(Add(), x, 1.0)}), {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "graph (x: f32[3]) {\n}",
        "graph (x: f32[3]) {\n  %0: f32[3] = Nope()(x)\n  return y=%0\n}",
        "graph (x: f32[3]) {\n  %0: f32[3] = Add()(x, z)\n  return y=%0\n}",
        "graph (x: f99[3]) {\n  return y=x\n}",
    ],
)
def test_bad_text_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse(text)
