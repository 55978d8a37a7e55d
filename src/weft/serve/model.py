"""A served model: checks requests against the graph's signature and runs the compiled graph."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from weft import io

# names of the Open Inference Protocol (v2)
V2_NAMES = {
    "float64": "FP64", "float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int64": "INT64",
    "int32": "INT32", "int16": "INT16", "int8": "INT8", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
_BY_V2 = {v: k for k, v in V2_NAMES.items()}


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
        """Run the graph.  BadRequest for inputs that do not fit."""
        try:
            with self.lock:
                return self.file.run(inputs)
        except (ValueError, IndexError) as e:
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
        arrays = {}
        for given in body["inputs"]:
            if not isinstance(given, dict) or not isinstance(given.get("name"), str):
                raise BadRequest('each input must be an object with a "name"')
            name = given["name"]
            want = self._type_of(name)
            dtype = _BY_V2.get(given.get("datatype"))
            if dtype != want.dtype.name:
                raise BadRequest(
                    f"input {name!r} has datatype {given.get('datatype')!r}, the model takes "
                    f"{V2_NAMES[want.dtype.name]!r}"
                )
            flat = _array(given.get("data"), want.dtype.np, name).reshape(-1)
            shape = given.get("shape")
            if not isinstance(shape, list) or not all(
                isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape
            ):
                raise BadRequest(f"input {name!r}: shape must be a list of sizes, got {shape!r}")
            if int(np.prod(shape, dtype=object)) != flat.size:
                raise BadRequest(
                    f"input {name!r}: shape {shape} needs {int(np.prod(shape, dtype=object))} "
                    f"values, {flat.size} were sent"
                )
            arrays[name] = flat.reshape(shape)
        return arrays

    def from_v1(self, body: Any) -> tuple[dict[str, np.ndarray], bool]:
        """Arrays from a v1 predict request, and whether they came a row at a time."""
        if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
            raise BadRequest('the request must be an object with either "instances" or "inputs"')
        only = next(iter(self.inputs))
        if "inputs" in body:
            columns = body["inputs"] if isinstance(body["inputs"], dict) else {only: body["inputs"]}
        else:
            rows = body["instances"]
            if not isinstance(rows, list) or not rows:
                raise BadRequest('"instances" must be a list of at least one row')
            if isinstance(rows[0], dict):
                columns = {k: [self._field(r, k) for r in rows] for k in rows[0]}
            else:
                columns = {only: rows}
        arrays = {k: _array(v, self._type_of(k).dtype.np, k) for k, v in columns.items()}
        return arrays, "instances" in body

    def _field(self, row: Any, name: str) -> Any:
        if not isinstance(row, dict) or name not in row:
            raise BadRequest(f"a row of \"instances\" lacks the input {name!r}")
        return row[name]

    def _type_of(self, name: str) -> Any:
        if name not in self.inputs:
            raise BadRequest(f"unknown input {name!r}: the model takes {sorted(self.inputs)}")
        return self.inputs[name]

    def to_v2(self, outputs: Mapping[str, np.ndarray], request_id: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "model_name": self.name,
            "model_version": "1",
            "outputs": [
                {
                    "name": k,
                    "datatype": V2_NAMES[self.outputs[k].dtype.name],
                    "shape": list(a.shape),
                    "data": _json_values(a).reshape(-1).tolist(),
                }
                for k, a in outputs.items()
            ],
        }
        if request_id is not None:
            answer["id"] = str(request_id)
        return answer

    def to_v1(self, outputs: Mapping[str, np.ndarray], *, by_row: bool) -> dict[str, Any]:
        plain = {k: _json_values(a).tolist() for k, a in outputs.items()}
        if not by_row:
            return {"outputs": next(iter(plain.values())) if len(plain) == 1 else plain}
        if len(plain) == 1:
            return {"predictions": next(iter(plain.values()))}
        count = len(next(iter(plain.values())))
        return {"predictions": [{k: v[i] for k, v in plain.items()} for i in range(count)]}


def _json_values(a: np.ndarray) -> np.ndarray:
    """JSON has no short floats: float32 as the double of the same value keeps every bit."""
    return a.astype(np.float64) if a.dtype.kind not in "iub" else a


def _array(data: Any, np_dtype: np.dtype, name: str) -> np.ndarray:
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: data must be a list, got {type(data).__name__}")
    try:
        a = np.array(data)
    except ValueError:
        raise BadRequest(f"input {name!r}: the nested lists do not have one shape") from None
    if a.dtype.kind not in "biuf" and a.size:
        raise BadRequest(f"input {name!r}: values must be numbers")
    if np_dtype.kind in "iu" and a.dtype.kind == "f" and a.size:
        raise BadRequest(f"input {name!r}: the model takes integers, got floats")
    with np.errstate(over="ignore"):
        return a.astype(np_dtype)
