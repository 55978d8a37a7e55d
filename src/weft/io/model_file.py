"""`.weft`: one file that resumes training, serves, and proves itself.

It is a `.safetensors` file.  Tensors: the state_dict under its own names; recorded inputs and
outputs, optimizer and other state under `weft/...`.  Metadata: the graph's text a signature, the
records, the report of the last verification, labels, preprocessing, lineage, a card.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import weft
from weft.compile.program import Program
from weft.compile.symbolic import NotUniform, bind, generalise
from weft.compile.trace import named_results, trace
from weft.core import config
from weft.core.graph import Graph, Node, to_text
from weft.core.graph_text import parse
from weft.core.types import Type
from weft.io import container, report, tree
from weft.io.check import Refused, check_text
from weft.ops.contract import fast_math, is_fast_math
from weft.ops.dispatch import read
from weft.runtime import memory

FORMAT = "1"
RESERVED = "weft/"
_PROGRAMS = 64  # sets of input sizes that stay compiled


def save(
    path: str | os.PathLike,
    model: Any,
    example: Any = None,
    *,
    input_names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    card: str = "",
    training: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None,
    dynamic_batch: bool = True,
) -> ModelFile:
    """Write `model` (a Module) to a `.weft` file and verify it.

    example        a tensor or tuple of tensors: the graph is traced on them in eval mode, and the
                   inputs and outputs are recorded, so that every later copy can be proved
    training       state to go on from: optimizer.state_dict(), epoch, RNG state, ...
    dynamic_batch  the first dim of every input is one symbol `b` (needs a model that allows it)
    Errors: trace errors name the user's line; nothing is written when anything fails.
    """
    arrays: dict[str, np.ndarray] = {}
    state = model.state_dict()
    for name, t in state.items():
        if name.startswith(RESERVED):
            raise ValueError(f"save: the parameter name {name!r} begins with {RESERVED!r}")
        arrays[name] = np.ascontiguousarray(read(t)).reshape(t.shape)
    metadata = {
        "weft.format": FORMAT,
        "weft.card": card,
        "weft.preprocessing": json.dumps(dict(preprocessing or {})),
        "weft.lineage": json.dumps({**_lineage(), **dict(lineage or {})}),
    }
    if labels is not None:
        metadata["weft.labels"] = json.dumps(list(labels))
    if training is not None:
        metadata["weft.training"] = json.dumps(
            tree.flatten(dict(training), RESERVED + "training", arrays)
        )
    if example is not None:
        inputs = _inputs(example, input_names)
        with fast_math(False):  # what is written does not depend on the setting
            graph, captured = _traced(model, inputs, dynamic_batch)
            metadata["weft.records"] = json.dumps([_record(model, inputs, arrays)])
        for name, t in captured.items():
            if name not in arrays:
                a = read(t)
                arrays[f"{RESERVED}const/{name}"] = np.ascontiguousarray(a).reshape(a.shape)
        metadata["weft.graph.forward"] = to_text(graph)
    made = ModelFile(str(path), Arrays(arrays), metadata)
    if example is not None:
        found = report.verify(made)
        made.keep_report("compiled", found)
        if not found.ok:
            raise RuntimeError(f"save: the graph does not reproduce the model:\n{found}")
    made.write()
    return made


def _lineage() -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"weft": weft.__version__, "python": platform.python_version(), "saved": now}


def _inputs(example: Any, names: Sequence[str] | None) -> dict[str, weft.Tensor]:
    given = example if isinstance(example, (tuple, list)) else (example,)
    if not all(isinstance(t, weft.Tensor) for t in given):
        raise TypeError("save: the example must be a tensor or a tuple of tensors")
    names = names or (["input"] if len(given) == 1 else [f"input{i}" for i in range(len(given))])
    if len(names) != len(given):
        raise ValueError(f"save: {len(given)} example tensors, {len(names)} names")
    return dict(zip(names, given, strict=True))


def _in_eval(model: Any, run: Callable[[], Any]) -> Any:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        return run()
    finally:
        for m, training in modes:
            m.training = training


def _traced(model: Any, inputs: Mapping[str, weft.Tensor], dynamic: bool) -> tuple[Graph, dict]:
    """The model's graph in eval mode and what it captured; symbolic in the batch when asked."""
    names = model.state_dict(keep_vars=True)

    def at(size: int | None) -> Any:
        chosen = {k: t if size is None else _resized(t, size) for k, t in inputs.items()}
        made = _in_eval(model, lambda: trace(model, chosen, names))
        _declare_unused(made.graph, chosen)
        return made

    if not dynamic:
        made = at(None)
        return made.graph, made.captured
    two, three, five = at(2), at(3), at(5)
    try:
        graph = generalise(two.graph, three.graph, 2, 3)
    except NotUniform as e:
        raise NotUniform(
            f"save: the model does other things at another size of its inputs' first dim ({e}); "
            "if that is no batch, save with dynamic_batch=False"
        ) from None
    if to_text(_plain(bind(graph, {"b": 5}))) != to_text(_plain(five.graph)):
        raise NotUniform("save: the traces at batch 2, 3 and 5 do not follow one formula")
    return graph, two.captured


def _declare_unused(g: Graph, inputs: Mapping[str, weft.Tensor]) -> None:
    """Every input of the model is one of the graph, in order, also those that nothing reads."""
    known = {n.name: n for n in g.inputs}
    for k, t in inputs.items():
        if k not in known:
            known[k] = Node(None, (), Type(tuple(t.shape), t.dtype), k, 0)
    weights = [n for n in g.inputs if n.name not in inputs]
    g.inputs = [*(known[k] for k in inputs), *weights]


def _plain(g: Graph) -> Graph:
    return Graph(g.inputs, g.outputs)


def _resized(t: weft.Tensor, size: int) -> weft.Tensor:
    if not t.ndim:
        return t
    return weft.stack([t.select(0, i % t.shape[0]) for i in range(size)])


def _record(model: Any, inputs: Mapping[str, weft.Tensor], arrays: dict) -> dict:
    """Run the model on the example and keep both sides."""

    def run() -> Any:
        with weft.no_grad():
            return model(*inputs.values())

    result = _in_eval(model, run)
    outputs = named_results(result)
    record: dict[str, Any] = {"signature": "forward", "inputs": {}, "outputs": {}}
    for side, tensors in (("inputs", inputs), ("outputs", outputs)):
        for name, t in tensors.items():
            key = f"{RESERVED}record/0/{side}/{name}"
            arrays[key] = np.array(read(t))
            record[side][name] = key
    return record


class Arrays(MutableMapping[str, np.ndarray]):
    """Arrays by name.  Who takes one out may write to it: no program counts on it meanwhile."""

    def __init__(self, held: Mapping[str, np.ndarray]) -> None:
        self.held = dict(held)  # for who only looks

    def __getitem__(self, name: str) -> np.ndarray:
        return memory.lend(self.held[name])

    def __setitem__(self, name: str, a: np.ndarray) -> None:
        self.held[name] = a

    def __delitem__(self, name: str) -> None:
        del self.held[name]

    def __contains__(self, name: object) -> bool:
        return name in self.held  # the Mapping's own would take the array out

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


@dataclass
class ModelFile:
    """An open `.weft` file: tensors, graphs, records, state."""

    path: str
    arrays: Arrays  # made of any mapping
    metadata: dict[str, str]
    _programs: dict[tuple, Program] = field(default_factory=dict, repr=False)
    _graphs: dict[str, Graph] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.arrays, Arrays):
            self.arrays = Arrays(self.arrays)

    def write(self, path: str | os.PathLike | None = None) -> None:
        """Write the file (to its own path), atomically."""
        container.write(self.path if path is None else path, self.arrays.held, self.metadata)

    def state_dict(self) -> dict[str, weft.Tensor]:
        """The model's parameters and buffers, for load_state_dict."""
        held = self.arrays.held
        return {k: weft.from_numpy(a) for k, a in held.items() if not k.startswith(RESERVED)}

    def graph(self, signature: str = "forward") -> Graph:
        """The graph of a signature.

        KeyError when the file was saved without an example; BadFile for a text that is no graph,
        or one whose weights are not the file's.
        """
        made = self._graphs.get(signature)
        if made is None:
            text = self.metadata.get(f"weft.graph.{signature}")
            if text is None:
                raise KeyError(f"{self.path}: no graph {signature!r} (saved without an example?)")
            try:
                made = parse(text)
                check_text(made)
                self._check_weights(made)
            except (ValueError, RecursionError) as e:
                raise container.BadFile(f"{self.path}: graph {signature!r}: {e}") from None
            self._graphs[signature] = made
        return made

    def _check_weights(self, graph: Graph) -> None:
        for n in graph.inputs:
            if self.is_weight(n.name):
                a = self._weight(n.name)
                if a.shape != tuple(n.type.shape) or a.dtype != n.type.dtype.np:
                    found = f"{a.dtype} {list(a.shape)}"
                    raise ValueError(f"weight {n.name!r} is {found}, the graph takes {n.type}")

    @property
    def labels(self) -> list[str] | None:
        found = self._json("labels", None)
        if found is not None and not (
            isinstance(found, list) and all(isinstance(v, str) for v in found)
        ):
            raise container.BadFile(f"{self.path}: weft.labels is not a list of texts")
        return found

    @property
    def training(self) -> dict[str, Any] | None:
        """The training state that was saved, or None."""
        found = self._json("training", None)
        try:
            return None if found is None else tree.unflatten(found, self.arrays.held)
        except container.BadFile:
            raise
        except (ValueError, TypeError, RecursionError) as e:
            raise container.BadFile(f"{self.path}: weft.training cannot be read: {e}") from None

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self._json("preprocessing", {}, dict)

    @property
    def lineage(self) -> dict[str, Any]:
        return self._json("lineage", {}, dict)

    def report(self, target: str = "compiled") -> dict[str, Any] | None:
        """What the last verification on a target found ("compiled", "onnx"), or None."""
        found = self._json("report", {}, dict).get(target)
        return found if isinstance(found, dict) else None

    def keep_report(self, target: str, found: report.Report) -> None:
        """Put a report into the metadata; `write` puts it into the file."""
        kept = {**self._json("report", {}, dict), target: found.as_dict()}
        self.metadata["weft.report"] = json.dumps(kept)

    def _json(self, key: str, default: Any, kind: type | None = None) -> Any:
        text = self.metadata.get(f"weft.{key}")
        if text is None:
            return default
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise container.BadFile(f"{self.path}: weft.{key} is not JSON") from None
        if kind is not None and not isinstance(found, kind):
            raise container.BadFile(f"{self.path}: weft.{key} is not a {kind.__name__}")
        return found

    def records(self) -> list[dict]:
        """Recorded calls: signature, inputs and outputs by name, as arrays."""
        out = []
        for r in self._json("records", [], list):
            try:
                sides = {
                    side: {name: self.arrays[key] for name, key in r[side].items()}
                    for side in ("inputs", "outputs")
                }
                out.append({"signature": r["signature"], **sides})
            except (KeyError, TypeError, AttributeError) as e:
                raise container.BadFile(f"{self.path}: a record is not whole: {e!r}") from None
        return out

    def run(
        self, inputs: Mapping[str, np.ndarray | weft.Tensor], signature: str = "forward"
    ) -> dict[str, np.ndarray]:
        """Run the compiled graph on arrays or tensors: no Python of the model is involved.

        Products obey the present `weft.set_fast_math`, whatever it was when the file was written.
        ValueError: a missing or unknown input, a shape or dtype that does not fit, a graph that
        is not safe to run.
        """
        arrays = {k: read(v) if isinstance(v, weft.Tensor) else v for k, v in inputs.items()}
        return self.program(arrays, signature)(arrays)

    def program(self, inputs: Mapping[str, np.ndarray], signature: str = "forward") -> Callable:
        """The function that runs the graph on inputs of these shapes, made once for each set."""
        graph = self.graph(signature)
        named = {n.name: n for n in graph.inputs}
        weights = {k: self._weight(k) for k in named if self.is_weight(k)}
        wanted = [k for k in named if k not in weights]
        if set(inputs) != set(wanted):
            raise ValueError(f"inputs are {sorted(inputs)}, the model takes {sorted(wanted)}")
        for k in wanted:
            have, want = inputs[k].dtype, named[k].type.dtype
            if have != want.np:
                raise ValueError(f"input {k!r} is {have}, the model takes {want.name}")
        sizes = report.sizes_for(graph, {k: inputs[k].shape for k in wanted})
        key = (signature, is_fast_math(), tuple(sorted(sizes.items())))
        program = self._program(graph, key, sizes, weights)

        def call(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            ready = {k: np.ascontiguousarray(given[k]) for k in wanted}
            for k in wanted:
                if ready[k].shape != inputs[k].shape or ready[k].dtype != inputs[k].dtype:
                    raise ValueError(f"input {k!r} is not of the shape the program was made for")
            try:
                return program.run({**weights, **ready})
            except (
                TypeError,
                AttributeError,
                KeyError,
            ) as e:  # NumPy met what no function gives it
                raise Refused(f"the graph cannot be run: {type(e).__name__}: {e}") from None

        return call

    def _program(
        self, graph: Graph, key: tuple, sizes: dict[str, int], weights: Mapping[str, np.ndarray]
    ) -> Program:
        with self._lock:
            program = self._programs.pop(key, None)
            if program is None:
                program = report.compiled(report.sized(graph, sizes))
                program.weights.keep(weights.keys() if config.packs_weights() else set())
            self._programs[key] = program  # the last used stand last
            while len(self._programs) > _PROGRAMS:
                del self._programs[next(iter(self._programs))]
            return program

    def programs(self) -> list[Program]:
        """The programs made so far, one a set of input sizes."""
        return list(self._programs.values())

    def is_weight(self, name: str) -> bool:
        """Whether an input of the graph is a tensor of this file (else a caller gives it)."""
        return name in self.arrays or f"{RESERVED}const/{name}" in self.arrays

    def weight(self, name: str) -> np.ndarray:
        """The file's tensor behind an input of the graph.  KeyError when it has none."""
        return memory.lend(self._weight(name))

    def _weight(self, name: str) -> np.ndarray:
        held = self.arrays.held
        a = held.get(name)
        return held[f"{RESERVED}const/{name}"] if a is None else a


def load(path: str | os.PathLike) -> ModelFile:
    """Open a `.weft` file.  FileNotFoundError; container.BadFile for a cut or changed one."""
    return from_container(path, *container.read(path))


def from_container(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> ModelFile:
    """The model in an opened container.  BadFile when it holds something else."""
    if metadata.get("weft.format") != FORMAT:
        found = metadata.get("weft.format")
        raise container.BadFile(
            f"{path}: not a .weft file (format {found!r}, this version reads {FORMAT!r})"
        )
    if "weft.state" in metadata:
        raise container.BadFile(f"{path}: a training state, not a model: weft.load reads it")
    return ModelFile(str(path), Arrays(arrays), metadata)
