"""SummaryWriter: scalars, pictures, histograms and text as TensorBoard event files.

The names and defaults of torch.utils.tensorboard.  The files are written by the package
`tensorboard`; it is imported when the first writer is made.
"""

from __future__ import annotations

import os
import socket
import struct
import time
import weakref
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import weft


class SummaryWriter:
    """Writes events to `log_dir` (default runs/DATE_HOST + comment).

    `purge_step`: TensorBoard leaves out what earlier files of the folder have from that step on.
    `flush_secs`: how long an event may wait in memory.  Events are written by the calling thread,
    so `max_queue` means nothing here.  ImportError when the package tensorboard is missing.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        self._proto, records = _tensorboard()
        if not log_dir:
            now = time.strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{now}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        os.makedirs(self.log_dir, exist_ok=True)
        self.purge_step = purge_step
        self._settings = (max_queue, flush_secs, filename_suffix)
        self._file = open(_next_name(self.log_dir) + filename_suffix, "wb")  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # also when the program ends without close()
        self._records = records.RecordWriter(self._file)
        self._flushed = time.monotonic()
        self._write(self._proto["event"].Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._children: dict[str, SummaryWriter] = {}  # of add_scalars, by folder
        if purge_step is not None:
            self.purge(purge_step)

    def get_logdir(self) -> str:
        """The folder of the event files."""
        return self.log_dir

    # ------------------------------------------------------------------ what can be written

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """One number (or one-element tensor).  The old style of summary, float32, is written."""
        a = _array(scalar_value)
        if a.size != 1:
            raise ValueError(f"add_scalar: {tag!r}: wanted one number, got shape {list(a.shape)}")
        self._add(tag, global_step, walltime, simple_value=float(a.reshape(())))

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Several curves in one chart: each in a folder of its own, log_dir/main_tag_tag."""
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, f"{main_tag.replace('/', '_')}_{tag}")
            child = self._children.get(folder)
            if child is None:
                queue, seconds, suffix = self._settings
                child = SummaryWriter(folder, "", self.purge_step, queue, seconds, suffix)
                self._children[folder] = child
            child.add_scalar(main_tag, value, global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """A picture: uint8, or floats in [0, 1]; 1 (grey), 3 or 4 channels; CHW, HWC or HW."""
        self._add(tag, global_step, walltime, image=self._image(_picture(img_tensor, dataformats)))

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """A batch of pictures side by side, 8 a row."""
        if "N" not in dataformats or len(dataformats) != _array(img_tensor).ndim:
            raise ValueError(f"add_images: {_array(img_tensor).shape} is not {dataformats}")
        n = np.moveaxis(_array(img_tensor), dataformats.index("N"), 0)
        rest = dataformats.replace("N", "")
        self._add(
            tag, global_step, walltime, image=self._image(_grid([_picture(x, rest) for x in n]))
        )

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: int | None = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """A matplotlib figure as a picture; closed afterwards unless `close` is False."""
        figure.canvas.draw()
        self.add_image(tag, np.asarray(figure.canvas.buffer_rgba()), global_step, walltime, "HWC")
        if close:
            import matplotlib.pyplot as plt

            plt.close(figure)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """The distribution of `values`.  `bins`: "tensorflow" (1.1**n), or as numpy.histogram."""
        a = _array(values).astype(np.float64).reshape(-1)
        if a.size == 0 or not np.isfinite(a).all():
            raise ValueError(f"add_histogram: {tag!r}: wanted finite values, at least one")
        counts, edges = np.histogram(
            a, _limits() if isinstance(bins, str) and bins == "tensorflow" else bins
        )
        counts, edges = _merged(counts, edges, max_bins)
        used = np.flatnonzero(counts)
        first, last = int(used[0]), int(used[-1])
        histogram = self._proto["summary"].HistogramProto(
            min=a.min(), max=a.max(), num=a.size, sum=a.sum(), sum_squares=a @ a,
            bucket_limit=edges[first : last + 2], bucket=[0, *counts[first : last + 1]],
        )  # fmt: skip
        self._add(tag, global_step, walltime, histo=histogram)

    def add_text(
        self,
        tag: str,
        text_string: str,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Text, shown as Markdown."""
        p = self._proto
        data = p["summary"].SummaryMetadata.PluginData(plugin_name="text", content=b"")
        tensor = p["tensor"].TensorProto(
            dtype=p["types"].DT_STRING,
            string_val=[text_string.encode()],
            tensor_shape=p["shape"].TensorShapeProto(dim=[{"size": 1}]),
        )
        metadata = p["summary"].SummaryMetadata(plugin_data=data)
        self._add(f"{tag}/text_summary", global_step, walltime, metadata=metadata, tensor=tensor)

    # ------------------------------------------------------------------ the file

    def purge(self, step: int) -> None:
        """Tell TensorBoard to leave out what was written before now with `step` or later."""
        p = self._proto["event"]
        log = p.SessionLog(status=p.SessionLog.START)
        self._write(p.Event(wall_time=time.time(), step=step, session_log=log))

    def flush(self) -> None:
        """Put everything so far on the disk."""
        for w in (self, *self._children.values()):
            w._records.flush()
            w._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and end."""
        for w in (self, *self._children.values()):
            w._records.close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _add(self, tag: str, step: int | None, when: float | None, **value: Any) -> None:
        summary = self._proto["summary"].Summary(
            value=[self._proto["summary"].Summary.Value(tag=tag, **value)]
        )
        event = self._proto["event"].Event(
            wall_time=time.time() if when is None else when,
            step=0 if step is None else int(step),
            summary=summary,
        )
        self._write(event)

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed > self._settings[1]:
            self.flush()

    def _image(self, a: np.ndarray) -> Any:
        height, width, channels = a.shape
        return self._proto["summary"].Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png(a)
        )


_START = "events.out.tfevents."


def _next_name(folder: str) -> str:
    """A file name that TensorBoard, which reads a folder's files by name, reads last."""
    taken = [n[len(_START) :].partition(".")[0] for n in os.listdir(folder) if n.startswith(_START)]
    newest = max((int(t) for t in taken if t.isdigit()), default=-1)
    second = max(int(time.time()), newest + 1)
    return os.path.join(folder, f"{_START}{second:010d}.{socket.gethostname()}.{os.getpid()}")


def _tensorboard() -> tuple[dict[str, Any], Any]:
    try:
        from tensorboard.compat.proto import (
            event_pb2,
            summary_pb2,
            tensor_pb2,
            tensor_shape_pb2,
            types_pb2,
        )
        from tensorboard.summary.writer import record_writer
    except ImportError:
        raise ImportError('SummaryWriter needs tensorboard: pip install "weft[board]"') from None
    made = {
        "event": event_pb2, "summary": summary_pb2, "tensor": tensor_pb2,
        "shape": tensor_shape_pb2, "types": types_pb2,
    }  # fmt: skip
    return made, record_writer


def _array(x: Any) -> np.ndarray:
    return np.array(x.detach() if isinstance(x, weft.Tensor) else x)


def _picture(x: Any, form: str) -> np.ndarray:
    """uint8 (height, width, channels)."""
    a = _array(x)
    if len(form) != a.ndim or sorted(form) not in (["H", "W"], ["C", "H", "W"]):
        raise ValueError(f"a picture of shape {list(a.shape)} is not {form}")
    if "C" not in form:
        a, form = a[..., None], f"{form}C"
    a = a.transpose([form.index(c) for c in "HWC"])
    if a.shape[2] not in (1, 3, 4):
        raise ValueError(f"a picture has 1, 3 or 4 channels, not {a.shape[2]}")
    if a.dtype != np.uint8:
        a = (np.clip(a.astype(np.float64), 0.0, 1.0) * 255.0).astype(np.uint8)
    return a


def _grid(pictures: list[np.ndarray], columns: int = 8) -> np.ndarray:
    if not pictures:
        raise ValueError("add_images: no pictures")
    h, w, c = pictures[0].shape
    columns = min(columns, len(pictures))
    sheet = np.zeros((-(-len(pictures) // columns) * h, columns * w, c), np.uint8)
    for i, p in enumerate(pictures):
        y, x = divmod(i, columns)
        sheet[y * h : (y + 1) * h, x * w : (x + 1) * w] = p
    return sheet


def png(a: np.ndarray) -> bytes:
    """uint8 (height, width, 1 | 3 | 4) as a PNG file (https://www.w3.org/TR/png-3/)."""
    height, width, channels = a.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # filter 0 before each row
    rows[:, 1:] = a.reshape(height, -1)
    color = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data)
        for name, data in (
            (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""),
        )
    )  # fmt: skip


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def _limits() -> np.ndarray:
    """TensorFlow's edges: +-1e-12 * 1.1**n up to 1e20, and 0."""
    positive = 1e-12 * 1.1 ** np.arange(775)
    positive = positive[positive < 1e20]
    return np.concatenate([-positive[::-1], [0.0], positive])


def _merged(counts: np.ndarray, edges: np.ndarray, most: int | None) -> tuple[Any, Any]:
    """At most `most` bins, neighbours added up."""
    if most is None or len(counts) <= most:
        return counts, edges
    step = -(-len(counts) // most)
    starts = np.arange(0, len(counts), step)
    return np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])
