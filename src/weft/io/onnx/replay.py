"""The proof of an export: recorded inputs run through the ONNX file, answers compared with eager's.

onnxruntime runs it where installed, else ONNX's own reference in NumPy.  On a failure the values
of every node are compared, and the first that differs is named with the user's line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from weft.io import report
from weft.io.container import BadFile
from weft.io.onnx.emit import onnx_package, onnxruntime_or_none
from weft.io.onnx.export import to_model
from weft.io.report import Report


def verify(
    model_file: Any,
    path: str | os.PathLike,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    *,
    runtime: str | None = None,
    keep: bool = False,
) -> Report:
    """Replay the file's records on the ONNX model at `path`.

    Another runtime sums in another order, so the bound is atol + rtol |answer|.
    runtime  "onnxruntime", "reference", or None: the first that is installed
    keep     put the report into the model file's metadata (``ModelFile.write` writes it)
    BadFile: the file is no ONNX model.  ImportError without the onnx package.
    """
    onnx = onnx_package()
    try:
        model = onnx.load(os.fspath(path))
    except FileNotFoundError:
        raise
    except Exception as e:  # protobuf's own errors have no common base
        raise BadFile(f"{path}: not an ONNX model: {type(e).__name__}") from None
    if not model.graph.node:
        raise BadFile(f"{path}: not an ONNX model: it has no graph")
    run, version = _runner(model, runtime)
    found = Report(f"ONNX in {version}")
    if isinstance(run, str):  # the runtime lacks an operator, or refuses the model
        found.problems.append(run)
        return found
    for i, record in enumerate(model_file.records()):
        names = list(record["outputs"])
        try:
            got = dict(zip(names, run(names, record["inputs"]), strict=True))
        except Exception as e:  # each runtime raises classes of its own
            found.problems.append(f"record {i}: {type(e).__name__}: {e}")
            continue
        for name, want in record["outputs"].items():
            found.checks.append(report.compare(i, name, np.asarray(got[name]), want, rtol, atol))
        if not found.ok and found.first_difference is None:
            found.first_difference = _first(model_file, model, record, runtime, rtol, atol)
    if keep:
        model_file.keep_report("onnx", found)
    return found


def _runner(model: Any, runtime: str | None) -> tuple[Any, str]:
    """(run(output names, inputs) -> arrays, or why not; the runtime's name and version)."""
    if runtime not in (None, "onnxruntime", "reference"):
        raise ValueError(f'verify: runtime is "onnxruntime" or "reference", got {runtime!r}')
    ort = None if runtime == "reference" else onnxruntime_or_none()
    if ort is None and runtime == "onnxruntime":
        raise ImportError('onnxruntime is not installed: pip install "weft[onnx]"')
    if ort is not None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        version = f"onnxruntime {ort.__version__}"
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # each kind of refusal has a class of its own
            if runtime is None and "NOT_IMPLEMENTED" in str(e):  # bfloat16, some of float64
                run, instead = _runner(model, "reference")
                return run, f"{instead} ({version} has no kernel for some node)"
            return str(e), version
        return session.run, version
    onnx = onnx_package()
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run, f"onnx.reference {onnx.__version__}"


def _first(
    model_file: Any, model: Any, record: Mapping, runtime: str | None, rtol: float, atol: float
) -> str | None:
    """The weight that differs, or the first op whose value in the other runtime does."""
    onnx = onnx_package()
    for t in model.graph.initializer:
        if model_file.is_weight(t.name):
            have = onnx.numpy_helper.to_array(t)
            if have.tobytes() != np.ascontiguousarray(model_file.weight(t.name)).tobytes():
                return f"none before the weight {t.name!r}, which is not the model file's"
    opset = next(o.version for o in model.opset_import if not o.domain)
    exported = to_model(model_file, opset)
    made = {name for p in model.graph.node for name in p.output}
    nodes = [n for n in exported.graph.nodes() if exported.values.get(n.serial) in made]
    wanted = list(dict.fromkeys(exported.values[n.serial] for n in nodes))
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    shown = {o.name for o in model.graph.output}
    for name in wanted:
        if name not in shown:
            open_model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    run, _ = _runner(open_model, runtime)
    if isinstance(run, str):
        return None
    theirs = dict(zip(wanted, run(wanted, record["inputs"]), strict=True))
    ours = report.every_value(model_file, exported.graph, record["inputs"])
    for n in nodes:
        got = np.asarray(theirs[exported.values[n.serial]])
        check = report.compare(0, str(n.op), got, ours[n.serial], rtol, atol)
        if not check.ok:
            return report.where(n, exported.graph, check)
    return None
