"""torch.futures, streams and events, names that torch removed."""

import threading
import time

import pytest

import weft
from weft.compat.torch_.devices import Event, Stream, cuda
from weft.compat.torch_.futures import Future, collect_all, wait_all


def test_a_future_waits_for_another_thread():
    f, order = Future(), []
    after = f.then(lambda done: done.wait() + 1)
    f.add_done_callback(lambda done: order.append(done.value()))
    assert not f.done() and not after.done()

    def give():
        time.sleep(0.02)
        f.set_result(3)

    thread = threading.Thread(target=give)
    thread.start()
    assert f.wait() == 3
    thread.join()
    assert after.wait() == 4 and order == [3] and f.done()
    f.add_done_callback(lambda done: order.append("late"))
    assert order == [3, "late"]
    with pytest.raises(RuntimeError, match="only be marked completed once"):
        f.set_result(4)
    with pytest.raises(RuntimeError):
        Future().value()


def test_a_future_carries_an_exception():
    f = Future()
    after = f.then(lambda done: done.wait())
    f.set_exception(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        f.wait()
    with pytest.raises(RuntimeError, match="running the callback: ValueError: bad"):
        after.wait()
    with pytest.raises(AssertionError):
        Future().set_exception("no exception")
    with pytest.raises(RuntimeError, match="cuda"):
        Future(devices=["cuda:0"])


def test_many_futures():
    futures = [Future() for _ in range(8)]
    everything = collect_all(futures)
    threads = [
        threading.Thread(target=f.set_result, args=(i,)) for i, f in enumerate(futures[1:], 1)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not everything.done()
    futures[0].set_result(0)
    assert everything.wait() == futures and wait_all(futures) == list(range(8))
    assert collect_all([]).wait() == []
    bad = Future()
    bad.set_exception(KeyError("k"))
    with pytest.raises(KeyError):
        wait_all([futures[0], bad])


def test_streams_and_events_of_the_cpu():
    s, e = Stream(), Event(enable_timing=True)
    assert s.query() and e.query() and s == Stream("cpu", priority=1) and s.device.type == "cpu"
    s.wait_event(e)
    e.synchronize()
    with s as inside:
        assert inside is s
    for record in (e.record, s.record_event):
        with pytest.raises(RuntimeError, match="cpu backend doesn't support events"):
            record()
    with pytest.raises(ValueError, match="must be recorded"):
        e.elapsed_time(e)
    with pytest.raises(ValueError, match="enable_timing"):
        Event().elapsed_time(e)
    with pytest.raises(RuntimeError, match="cuda"):
        Stream("cuda")
    with pytest.raises(RuntimeError, match="requires CUDA"):
        cuda.Stream()
    with pytest.raises(NotImplementedError, match="record_stream"):
        weft.ones(1).record_stream(s)


@pytest.mark.parametrize("name", ["symeig", "eig", "lstsq", "solve", "matrix_rank"])
def test_what_torch_removed_says_so(name):
    with pytest.raises(RuntimeError, match="and is now removed"):
        getattr(weft, name)(weft.ones(2, 2))


def test_resize_that_is_no_resize_():
    x = weft.arange(6.0).reshape(2, 3)
    with pytest.warns(UserWarning, match="deprecated"):
        assert x.resize(3, 2).shape == (3, 2)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="requested resize to 7"):
        x.resize(7)
