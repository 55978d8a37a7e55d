"""SummaryWriter's files, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest

import weft
from weft.utils.tensorboard import SummaryWriter, png

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    keep_all = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    return accumulator.EventAccumulator(str(folder), size_guidance=keep_all).Reload()


def pixels(data: bytes) -> np.ndarray:
    """A PNG's pixels by a decoder of the test's own (8 bits, filter 0 only)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, size = 8, b"", (0, 0, 0)
    while at < len(data):
        (n,) = struct.unpack(">I", data[at : at + 4])
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + n]
        assert struct.unpack(">I", data[at + 8 + n : at + 12 + n])[0] == zlib.crc32(name + content)
        if name == b"IHDR":
            w, h, depth, color = struct.unpack(">IIBB", content[:10])
            assert depth == 8
            size = (h, w, {0: 1, 2: 3, 6: 4}[color])
        body += content if name == b"IDAT" else b""
        at += 12 + n
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(size[0], -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(size)


def test_scalars(tmp_path):
    with SummaryWriter(tmp_path) as w:
        w.add_scalar("loss", 0.5, 1, walltime=12.0)
        w.add_scalar("loss", weft.tensor(0.25, requires_grad=True), 2)
        w.add_scalar("loss", np.float32(3), 3)
        w.add_scalar("flat", 1)
        assert w.get_logdir() == str(tmp_path)
    found = read(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 0.5), (2, 0.25), (3, 3.0)]
    assert found.Scalars("loss")[0].wall_time == 12.0
    assert found.Scalars("flat")[0].step == 0


def test_scalars_of_one_chart_lie_in_folders_of_their_own(tmp_path):
    with SummaryWriter(tmp_path) as w:
        for i in range(2):
            w.add_scalars("run/wave", {"sin": i, "cos": -i}, i)
    assert [e.value for e in read(tmp_path / "run_wave_cos").Scalars("run/wave")] == [0.0, -1.0]
    assert [e.value for e in read(tmp_path / "run_wave_sin").Scalars("run/wave")] == [0.0, 1.0]


def test_images(tmp_path, rng):
    color = rng.integers(0, 256, (3, 5, 7), dtype=np.uint8)
    grey = rng.random((4, 6)).astype(np.float32)
    with SummaryWriter(tmp_path) as w:
        w.add_image("chw", color, 1)
        w.add_image("hwc", color.transpose(1, 2, 0), 1, dataformats="HWC")
        w.add_image("grey", weft.tensor(grey), 1, dataformats="HW")
        w.add_images("many", np.stack([color] * 9), 1)
    found = read(tmp_path)
    wanted = color.transpose(1, 2, 0)
    for tag in ("chw", "hwc"):
        (event,) = found.Images(tag)
        assert (event.height, event.width, event.step) == (5, 7, 1)
        assert (pixels(event.encoded_image_string) == wanted).all()
    (event,) = found.Images("grey")
    assert (pixels(event.encoded_image_string)[..., 0] == (grey * 255.0).astype(np.uint8)).all()
    (event,) = found.Images("many")
    sheet = pixels(event.encoded_image_string)
    assert (
        sheet.shape == (10, 56, 3) and (sheet[5:, :7] == wanted).all() and not sheet[5:, 7:].any()
    )


def test_png_is_read_by_others(rng):
    image = pytest.importorskip("PIL.Image")
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        a = rng.integers(0, 256, (3, 2, channels), dtype=np.uint8)
        opened = image.open(io.BytesIO(png(a)))
        assert opened.mode == mode
        assert (np.asarray(opened).reshape(a.shape) == a).all()


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 5])
def test_histogram(bins, tmp_path, rng):
    values = rng.standard_normal(1000)
    with SummaryWriter(tmp_path) as w:
        w.add_histogram("h", weft.tensor(values), 4, bins=bins, max_bins=40)
    (event,) = read(tmp_path).Histograms("h")
    h = event.histogram_value
    assert (h.min, h.max, h.num, event.step) == (values.min(), values.max(), 1000, 4)
    assert h.sum == pytest.approx(values.sum()) and h.sum_squares == pytest.approx(values @ values)
    assert len(h.bucket) == len(h.bucket_limit) and h.bucket[0] == 0
    counted = np.histogram(values, h.bucket_limit)[0]
    assert list(h.bucket[1:]) == list(counted) and counted.sum() == 1000


def test_text_and_figure(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plt.figure(figsize=(2, 1), dpi=50)
    with SummaryWriter(tmp_path) as w:
        w.add_text("note", "**bold**", 2)
        w.add_figure("plot", figure, 3)
    found = read(tmp_path)
    (event,) = found.Tensors("note/text_summary")
    assert event.tensor_proto.string_val[0] == b"**bold**" and event.step == 2
    assert (found.Images("plot")[0].width, found.Images("plot")[0].height) == (100, 50)
    assert not plt.fignum_exists(figure.number)


def test_purge_leaves_out_later_steps_of_earlier_files(tmp_path):
    with SummaryWriter(tmp_path) as w:
        for i in range(5):
            w.add_scalar("x", i, i)
    with SummaryWriter(tmp_path, purge_step=3) as w:
        w.add_scalar("x", 30, 3)
    assert [e.value for e in read(tmp_path).Scalars("x")] == [0.0, 1.0, 2.0, 30.0]


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SummaryWriter(comment="_x").close()
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.endswith("_x")


def test_mistakes_are_named(tmp_path):
    with SummaryWriter(tmp_path) as w:
        with pytest.raises(ValueError, match=r"'v': wanted one number, got shape \[2\]"):
            w.add_scalar("v", weft.ones(2))
        with pytest.raises(ValueError, match="is not CHW"):
            w.add_image("i", np.zeros((2, 2)))
        with pytest.raises(ValueError, match="1, 3 or 4 channels, not 2"):
            w.add_image("i", np.zeros((2, 4, 4)))
        with pytest.raises(ValueError, match="finite"):
            w.add_histogram("h", [1.0, float("nan")])
