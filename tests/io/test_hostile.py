"""A file may lie: graph texts that are broken, absurd or out of bounds are refused, never run."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import weft
from tests.io.models import MODELS
from weft import io
from weft.core.graph import infer, to_text
from weft.core.graph_text import parse
from weft.core.op import REGISTRY
from weft.io.check import has_rule
from weft.ops.kinds import View

X = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}


def _file(
    body: str, head: str = "x: f32[3,4]", end: str = "y=%0", **arrays: np.ndarray
) -> io.ModelFile:
    text = f"graph ({head}) {{\n{body}\n  return {end}\n}}"
    return io.ModelFile("hostile.weft", arrays, {"weft.graph.forward": text})


def test_the_frame_of_these_tests_runs_a_good_graph() -> None:
    file = _file("  %0: f32[4,3] = Permute(dims=(1, 0))(x)")
    np.testing.assert_array_equal(file.run(X)["y"], X["x"].T)


TEXTS = [
    "",
    "  %0: f32[3,4] = Nothing()(x)",
    "  %0: f32[3,4] = Exp()(x, x)",
    "  %0: f32[3,4] = Exp()()",
    "  %0: f32[3,4] = Exp()(1.0)",
    "  %0: f32[3,4] = Exp()(z)",
    "  %0: f32[3,4] = Exp(speed=3)(x)",
    "  %0: f32[3,4] = Exp()(x",
    "  %0: f32[3,4] = Exp(x)",
    "  %0: q99[3,4] = Exp()(x)",
    "  %0: f32[3,5] = Exp()(x)",
    "  %0: i64[3,4] = Exp()(x)",
    "  %0: f32[b,4] = Exp()(x)",
    "  %0 = Exp()(x)",
    "  %0: f32[3,4] = __import__('os').system('true')(x)",
    "  %0: f32[3,4] = Softmax(dim=__import__('os'))(x)",
    "  %0: f32[3,4] = Softmax(dim=1.0)(x)",
    "  %0: f32[3,4] = Softmax(dim='1')(x)",
    "  %0: f32[3,4] = Softmax(dim=True)(x)",
    "  %0: f32[3,4] = Softmax(dim=5)(x)",
    "  %0: f32[3,4] = Softmax(dim=99999999999999999999999999)(x)",
    "  %0: f32[12] = Reshape(shape=(13,))(x)",
    "  %0: f32[12] = Reshape(shape=(-1,))(x)",
    "  %0: f32[12] = Reshape(shape=(-3, -4))(x)",
    "  %0: f32[4,3] = Permute(dims=(1, 1))(x)",
    "  %0: f32[4,3] = Permute(dims=(1,))(x)",
    "  %0: f32[4,3] = Permute(dims=(7, 0))(x)",
    "  %0: f32[4,3] = Permute(dims=(-1, 0))(x)",
    "  %0: f32[4] = Expand(shape=(4,))(x)",
    "  %0: f32[6,4] = Expand(shape=(6, 4))(x)",
    "  %0: f32[9,4] = Slice(dim=0, start=0, stop=9, step=1)(x)",
    "  %0: f32[9,4] = Slice(dim=0, start=-3, stop=2, step=1)(x)",
    "  %0: f32[9,4] = Slice(dim=0, start=0, stop=3, step=0)(x)",
    "  %0: f32[9,4] = Slice(dim=0, start=2, stop=0, step=-1)(x)",
    "  %0: f32[4] = Select(dim=0, index=3)(x)",
    "  %0: f32[4] = Select(dim=0, index=-1)(x)",
    "  %0: f32[4] = Select(dim=4, index=0)(x)",
    "  %0: f32[5] = AsStrided(shape=(5,), strides=(3,), offset=0)(x)",
    "  %0: f32[5] = AsStrided(shape=(2,), strides=(-1,), offset=0)(x)",
    "  %0: f32[5] = AsStrided(shape=(2, 2), strides=(1,), offset=0)(x)",
    "  %0: f32[5] = AsStrided(shape=(2,), strides=(1,), offset=-1)(x)",
    "  %0: f32[2] = AsStrided(shape=(2,), strides=(1099511627776,), offset=0)(x)",
    "  %0: f32[3] = Diagonal(offset=0, dim1=0, dim2=0)(x)",
    "  %0: f32[2,4,2] = Unfold(dim=0, size=9, step=1)(x)",
    "  %0: f32[2,4,2] = Unfold(dim=0, size=2, step=0)(x)",
    "  %0: f32[3] = Sum(dims=(2,), keepdim=False)(x)",
    "  %0: f32[3] = Sum(dims=(1, 0), keepdim=False)(x)",
    "  %0: f32[3,4] = AMin(dims=(), keepdim=False)(x)",
    "  %0: f32[3] = Sum(dims=(0, 0), keepdim=False)(x)",
    "  %0: f32[3] = Sum(dims=(-1,), keepdim=False)(x)",
    "  %0: f32[3,4] = MatMul()(x, x)",
    "  %0: f32[3,4] = MatMul()(x, 2.0)",
    "  %0: f32[3,4] = CumSum(dim=2)(x)",
    "  %0: f32[3,4] = Concat(dim=-1)(x, x)",
    "  %0: f32[3,4] = Concat(dim=0)()",
    "  %0: f32[3,4] = Pad(widths=((-1, 0), (0, 0)), value=0)(x)",
    "  %0: f32[3,4] = Pad(widths=((1, 0),), value=0)(x)",
    "  %0: f32[3,4] = Gather(dim=0)(x, x)",
    "  %0: f32[3,4] = Index(dims=(0,), at=0, wrap=True)(x, x)",
    "  %0: i64[3] = Arange(start=0, step=1, length=3, dtype=i64)()\n"
    "  %1: f32[3,4] = Index(dims=(0, 0), at=0, wrap=True)(x, %0, %0)",
    "  %0: i64[3] = Arange(start=0, step=1, length=-3, dtype=i64)()",
    "  %0: f32[3,4] = Embedding(padding_idx=None, scale_grad_by_freq=False)(x, x)",
    "  %0: f32[3,4] = LayerNorm(ndims=1, eps=1e-05)(x, x, x)",
    "  %0: f32[3,4] = LayerNorm(ndims=7, eps=1e-05)(x, x, x)",
    "  %0: f32[3,4] = Attention(causal=False, scale=1.0, with_sums=False)(x, x, x)",
    "  %0: f32[1,1,1,1] = Conv2d(stride=(0, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)"
    "(x, x)",
    "  %0: f32[1099511627776] = Full(shape=(1099511627776,), value=1.0, dtype=f32)()",
    "  %0: f32[9,9] = Full(shape=(-9, -9), value=1.0, dtype=f32)()",
    "  %0: f32[3,4] = Draw(kind='normal', shape=(3, 4), params=(0.0, 1.0), dtype=f32)()",
    "  %0: f32[3,4] = IndexBack(dims=(0,), at=0, wrap=True, shape=(900,))(x, x)",
    "  %0: f32[3,4] = Slope(fn=Softmax(dim=1), order=1)(x, x)",
    "  %0: f32[3,4] = Slope(fn=Gelu(approximate='none'), order=10000)(x, x)",
    f"  %0: f32[3,4] = Permute(dims={'(' * 5000}1{')' * 5000})(x)",
    f"  %0: f32[3,4] = Softmax(dim={'-' * 5000}1)(x)",
    "  %0: f32[3,4] = Exp()" + "(" * 100_000,
    "  %0: f32[3,4] = Exp()" + ")(" * 50_000,
    "  " + "%0: " * 50_000,
]


@pytest.mark.parametrize("body", TEXTS, ids=range(len(TEXTS)))
def test_refused(body: str) -> None:
    end = "y=%1" if "%1: " in body else "y=%0"
    start = time.process_time()
    with pytest.raises(ValueError) as caught:
        _file(body, end=end).run(X)
    assert time.process_time() - start < 2
    assert len(str(caught.value)) < 500
    honest = _with_inferred_types(body, end)
    if honest is not None:  # the types told are right: the op itself must be what is refused
        with pytest.raises(ValueError):
            honest.run(X)


def _with_inferred_types(body: str, end: str) -> io.ModelFile | None:
    """The same graph with the types its ops infer; None where they infer none."""
    text = _file(body, end=end).metadata["weft.graph.forward"]
    try:
        graph = parse(text)
        for n in graph.nodes():
            n.type = infer(n.op, n.args)
    except Exception:
        return None
    if any(t in body for t in ("[3,5] = Exp", "i64[3,4] = Exp", "f32[b,4] = Exp")):
        return None  # nothing but the type was wrong
    return io.ModelFile("hostile.weft", {}, {"weft.graph.forward": to_text(graph)})


def test_a_class_of_wrong_attribute_leaves_the_right_one_alone() -> None:
    """Ops are interned, and 1.0 == 1: a refused Softmax(dim=1.0) may not stand for (dim=1)."""
    with pytest.raises(ValueError):
        _file("  %0: f32[3,4] = LogSoftmax(dim=0.0)(x)").run(X)
    assert weft.ones(2, 2).log_softmax(0).shape == (2, 2)


@pytest.mark.parametrize(
    ("have", "says"),
    [
        (np.zeros((2, 4), np.float32), "the graph takes"),
        (np.zeros((3, 4), np.float64), "the graph takes"),
        (np.zeros((), np.float32), "the graph takes"),
    ],
)
def test_weights_that_are_not_what_the_graph_says(have: np.ndarray, says: str) -> None:
    file = _file("  %0: f32[3,4] = Add()(x, w)", head="x: f32[3,4], w: f32[3,4]", w=have)
    with pytest.raises(io.BadFile, match=says):
        file.run(X)


@pytest.mark.parametrize(
    "head",
    ["x: f32[0*b,4]", "x: f32[b-99999999999999,4]", "x: f32[-3,4]", "x: f32[3,4], x: f32[3]"],
)
def test_symbolic_sizes_that_make_no_sense(head: str) -> None:
    with pytest.raises(ValueError):
        _file("  %0: f32[3,4] = Exp()(x)", head=head).run(X)


@pytest.mark.parametrize("end", ["y=3.0", "y=z", "", "%0", "y=%0, z=%9"])
def test_bad_outputs(end: str) -> None:
    with pytest.raises(ValueError):
        _file("  %0: f32[3,4] = Exp()(x)", end=end).run(X)


def test_outputs_that_are_inputs_views_constants_and_repeats() -> None:
    body = (
        "  %0: f32[4,3] = Permute(dims=(1, 0))(x)\n"
        "  %1: f32[2] = Full(shape=(2,), value=1.5, dtype=f32)()"
    )
    got = _file(body, end="a=%0, b=%0, c=x, d=%1, e=x").run(X)
    for key, want in {
        "a": X["x"].T,
        "b": X["x"].T,
        "c": X["x"],
        "e": X["x"],
        "d": [1.5, 1.5],
    }.items():
        np.testing.assert_array_equal(got[key], want)
    got["c"][0, 0] = 9
    assert X["x"][0, 0] == 0 and got["e"][0, 0] == 0


@pytest.mark.parametrize(
    "key", ["records", "labels", "preprocessing", "lineage", "report", "training"]
)
@pytest.mark.parametrize(
    "text", ["{", "3", '[{"inputs": 3}]', '{"$what": 1}', "[" * 100_000, "null"]
)
def test_metadata_of_wrong_types(key: str, text: str) -> None:
    file = _file("  %0: f32[3,4] = Exp()(x)")
    file.metadata[f"weft.{key}"] = text
    for read in (file.records, lambda: file.labels, lambda: file.preprocessing,
                 lambda: file.lineage, file.report, lambda: file.training):  # fmt: skip
        try:
            read()
        except io.BadFile as e:
            assert "hostile.weft" in str(e) or "state" in str(e)


def test_every_op_with_native_code_is_checked_or_refused() -> None:
    """An op that a model's forward pass needs and that has no rule could not be saved."""
    missing = {
        name
        for name, op in REGISTRY.items()
        if (op.plan is not None or issubclass(op, View)) and not has_rule(op)
    }
    gradients = {
        n
        for n in missing
        if re.search(r"Back$|Input$|Weight$|Grad$|Sums$|^(PlanePut|PutClass)$", n)
    }
    assert missing - gradients == set(), "add a rule to io/check.py"


FUZZ = """
import random, re, sys, warnings
from weft import io
from weft.core.graph import infer, to_text
from weft.core.graph_text import parse
from weft.core.op import REGISTRY
warnings.simplefilter("ignore")
seed, count, *paths = sys.argv[1:]
rng = random.Random(int(seed))
files = [io.load(p) for p in paths]
NUMBERS = ["-1", "0", "1", "2", "3", "7", "100", "1000000", "-5", "9223372036854775807", "True",
           "1.5", "None", "'x'", "(1, 2)", "()", "nan"]

def changed(text):
    lines = text.split("\\n")
    for _ in range(rng.choice([1, 1, 2, 4])):
        i = rng.randrange(len(lines))
        line, kind = lines[i], rng.randrange(8)
        places = list(re.finditer(r"%[0-9]+" if kind == 4 else r"-?[0-9]+", line))
        if kind <= 4 and places:
            m = rng.choice(places)
            new = f"%{rng.randrange(60)}" if kind == 4 else rng.choice(NUMBERS)
            line = line[:m.start()] + new + line[m.end():]
        elif kind == 5 and len(lines) > 4:
            del lines[i]
            continue
        elif kind == 6:
            new = rng.choice(["f64", "i32", "bf16"])
            line = line.replace(rng.choice(["f32", "i64", "b1"]), new)
        elif kind == 7:
            line = re.sub(r"= \\w+\\(.*?\\)\\(", f"= {rng.choice(list(REGISTRY))}()(", line)
        lines[i] = line
    return "\\n".join(lines)

ran = 0
for _ in range(int(count)):
    file = rng.choice(files)
    text = changed(file.metadata["weft.graph.forward"])
    other = io.ModelFile("x", file.arrays, {**file.metadata, "weft.graph.forward": text})
    found = io.verify(other)
    ran += bool(found.checks)
    difference = found.first_difference
    # what was let in computes what its ops mean: nothing outside its operands was read
    same = difference is None or difference.startswith("none") or "nan" in difference
    assert same, (text, difference)
print("done", ran)
"""


def test_changed_graphs_never_crash_and_never_read_elsewhere(tmp_path: Path) -> None:
    weft.manual_seed(3)
    paths = []
    for name, make in MODELS.items():
        paths.append(str(tmp_path / f"{name}.weft"))
        io.save(paths[-1], *make())
    seed = random.randrange(1 << 30)
    run = subprocess.run(
        [sys.executable, "-c", FUZZ, str(seed), "400", *paths], capture_output=True, text=True
    )
    assert run.returncode == 0, f"seed {seed}: {run.stderr[-2000:]}"
    # of 250, 26 to 46 were let in (24 seeds), once 19: of 400, 20 are five deviations off
    assert int(run.stdout.split()[1]) > 20
