"""A served model: checks requests against the graph's signature and runs the compiled graph."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

import weft
from weft import io

# names of the Open Inference Protocol (v2)
V2_NAMES = {
    "float64": "FP64", "float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int64": "INT64",
    "int32": "INT32", "int16": "INT16", "int8": "INT8", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip


class BadRequest(ValueError):
    """The request does not fit the model; the message says what was sent and what is wanted."""


class ServedModel:
    """A `.weft` file ready to answer.  It is `ready` only after its records replayed correctly."""

    def __init__(self, file: io.ModelFile, name: str) -> None:
        self.file = file
        self.name = name
        self.lock = threading.Lock()
        graph = file.graph()
        weights = {k for k in (n.name for n in graph.inputs) if file.is_weight(k)}
        self.inputs = {n.name: n.type for n in graph.inputs if n.name not in weights}
        self.outputs = {k: n.type for k, n in graph.outputs.items()}
        self.report = io.verify(file)

    @property
    def ready(self) -> bool:
        return self.report.ok

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph.  BadRequest for inputs that do not fit, also by their values (indices)."""
        try:
            with self.lock:
                return self.file.run(inputs)
        except (ValueError, IndexError, RuntimeError) as e:
            raise BadRequest(str(e)) from None

    def metadata(self) -> dict[str, Any]:
        """The v2 description of inputs and outputs; a symbolic dim is -1."""

        def side(types: Mapping[str, Any]) -> list[dict]:
            return [
                {
                    "name": k,
                    "datatype": V2_NAMES[t.dtype.name],
                    "shape": [d if isinstance(d, int) else -1 for d in t.shape],
                }
                for k, t in types.items()
            ]

        return {
            "name": self.name,
            "versions": ["1"],
            "platform": "weft",
            "inputs": side(self.inputs),
            "outputs": side(self.outputs),
        }

    # ------------------------------------------------------------------ requests

    def from_v2(self, body: Any) -> dict[str, np.ndarray]:
        """Arrays from a v2 inference request."""
        if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
            raise BadRequest('the request must be an object with a list "inputs"')
        self._wanted(body)
        arrays = {}
        for given in body["inputs"]:
            if not isinstance(given, dict) or not isinstance(given.get("name"), str):
                raise BadRequest('each input must be an object with a "name"')
            name = given["name"]
            if name in arrays:
                raise BadRequest(f"input {name!r} is given twice")
            want = self._type_of(name)
            if given.get("datatype") != V2_NAMES[want.dtype.name]:
                raise BadRequest(
                    f"input {name!r} has datatype {given.get('datatype')!r}, the model takes "
                    f"{V2_NAMES[want.dtype.name]!r}"
                )
            flat = _array(given.get("data"), want.dtype, name).reshape(-1)
            shape = given.get("shape")
            if not isinstance(shape, list) or not all(
                isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 40 for n in shape
            ):
                raise BadRequest(f"input {name!r}: shape must be a list of sizes, got {shape!r}")
            if math.prod(shape) != flat.size:
                raise BadRequest(
                    f"input {name!r}: shape {shape} needs {math.prod(shape)} values, {flat.size} "
                    "were sent"
                )
            if len(shape) != want.ndim:
                raise BadRequest(f"input {name!r} has shape {shape}, wanted {want}")
            arrays[name] = flat.reshape(shape)
        return arrays

    def _wanted(self, body: Mapping[str, Any]) -> list[str]:
        """The outputs a v2 request asks for: all when it names none."""
        asked = body.get("outputs")
        if asked is None or asked == []:
            return list(self.outputs)
        if not isinstance(asked, list) or not all(isinstance(o, dict) for o in asked):
            raise BadRequest('"outputs" must be a list of objects with a "name"')
        names = [o.get("name") for o in asked]
        for name in names:
            if name not in self.outputs:
                raise BadRequest(f"unknown output {name!r}: the model gives {list(self.outputs)}")
        return names

    def from_v1(self, body: Any) -> tuple[dict[str, np.ndarray], int | None]:
        """Arrays from a v1 predict request, and how many rows when they came a row at a time."""
        if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
            raise BadRequest('the request must be an object with either "instances" or "inputs"')
        only = next(iter(self.inputs))
        if "inputs" in body:
            given, count = body["inputs"], None
            columns = given if isinstance(given, dict) else {only: given}
        else:
            rows = body["instances"]
            if not isinstance(rows, list) or not rows:
                raise BadRequest('"instances" must be a list of at least one row')
            count = len(rows)
            if isinstance(rows[0], dict):
                names = set(rows[0])
                if any(not isinstance(r, dict) or set(r) != names for r in rows):
                    raise BadRequest('the rows of "instances" do not have the same inputs')
                columns = {k: [r[k] for r in rows] for k in rows[0]}
            else:
                columns = {only: rows}
        return {k: _array(v, self._type_of(k).dtype, k) for k, v in columns.items()}, count

    def _type_of(self, name: str) -> Any:
        if name not in self.inputs:
            raise BadRequest(f"unknown input {name!r}: the model takes {sorted(self.inputs)}")
        return self.inputs[name]

    # ------------------------------------------------------------------ answers

    def to_v2(self, outputs: Mapping[str, np.ndarray], body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a v2 request: the outputs it asked for, and its id."""
        answer: dict[str, Any] = {
            "model_name": self.name,
            "model_version": "1",
            "outputs": [
                {
                    "name": k,
                    "datatype": V2_NAMES[self.outputs[k].dtype.name],
                    "shape": list(outputs[k].shape),
                    "data": _json_values(outputs[k]).reshape(-1).tolist(),
                }
                for k in self._wanted(body)
            ],
        }
        if body.get("id") is not None:
            answer["id"] = str(body["id"])
        return answer

    def to_v1(self, outputs: Mapping[str, np.ndarray], rows: int | None) -> dict[str, Any]:
        """The answer to a v1 request, by row where the request was."""
        plain = {k: _json_values(a).tolist() for k, a in outputs.items()}
        if rows is None:
            return {"outputs": next(iter(plain.values())) if len(plain) == 1 else plain}
        for k, a in outputs.items():
            if not a.ndim or len(a) != rows:
                raise BadRequest(f'output {k!r} is not by row; send "inputs" and not "instances"')
        if len(plain) == 1:
            return {"predictions": next(iter(plain.values()))}
        return {"predictions": [{k: v[i] for k, v in plain.items()} for i in range(rows)]}


def _json_values(a: np.ndarray) -> np.ndarray:
    """JSON has no short floats: float32 as the double of the same value keeps every bit."""
    return a.astype(np.float64) if a.dtype.kind not in "iub" else a


def _array(data: Any, d: weft.dtype, name: str) -> np.ndarray:
    """Nested lists of numbers as an array.  BadRequest for a number that the dtype cannot hold."""
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: data must be a list, got {type(data).__name__}")
    try:
        a = np.array(data)
    except (ValueError, OverflowError):
        raise BadRequest(f"input {name!r}: the nested lists do not have one shape") from None
    if not a.size:
        return a.astype(d.np)
    if a.dtype.kind not in "biuf":
        raise BadRequest(f"input {name!r}: values must be numbers that {d.name} can hold")
    if d.is_floating_point:
        if a.dtype.kind == "b":
            raise BadRequest(f"input {name!r}: values must be numbers, not true and false")
        with np.errstate(over="ignore"):
            return a.astype(d.np)
    low, high = (0, 1) if d is weft.bool else (np.iinfo(d.np).min, np.iinfo(d.np).max)
    if a.dtype.kind == "f" or int(a.min()) < low or int(a.max()) > high:
        raise BadRequest(f"input {name!r}: values must be whole numbers that {d.name} can hold")
    return a.astype(d.np)
