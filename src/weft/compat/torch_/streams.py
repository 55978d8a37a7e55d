"""torch.Stream and torch.Event as they are on a machine without an accelerator."""

from __future__ import annotations

from typing import Any

import weft


def _cpu(device: Any) -> None:
    if device is not None and weft.device(device).type != "cpu":
        kind = weft.device(device).type
        raise RuntimeError(f"PyTorch is not linked with support for {kind} devices")


class Stream:
    """The CPU's one queue: what is called has run when the call returns."""

    stream_id, device_index, device_type = 0, -1, 0
    device = weft.device("cpu")

    def __init__(self, device: Any = None, *, priority: int = 0) -> None:
        _cpu(device)

    def query(self) -> bool:
        """Whether all has run: it has."""
        return True

    def synchronize(self) -> None:
        """Wait until all has run."""

    def wait_event(self, event: Event) -> None:
        """What follows waits for the event, which has happened."""

    def record_event(self, event: Any = None) -> Event:
        """RuntimeError: the CPU records no events."""
        raise RuntimeError("cpu backend doesn't support events.")

    def wait_stream(self, other: Stream) -> None:
        """RuntimeError: waiting for a stream needs events."""
        raise RuntimeError("cpu backend doesn't support events.")

    def is_capturing(self) -> bool:
        """Whether calls are recorded into a graph: never."""
        return False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def __hash__(self) -> int:
        return hash((self.device_index, self.stream_id))

    def __repr__(self) -> str:
        return "torch.Stream device_type=cpu, device_index=-1, stream_id=0"


class Event:
    """A point in a stream; the CPU's cannot be recorded."""

    event_id = 0
    device = weft.device("cpu")

    def __init__(
        self,
        device: Any = None,
        *,
        enable_timing: bool = False,
        blocking: bool = False,
        interprocess: bool = False,
    ) -> None:
        _cpu(device)
        self._timed = enable_timing

    def record(self, stream: Stream | None = None) -> None:
        """RuntimeError: the CPU records no events."""
        raise RuntimeError("cpu backend doesn't support events.")

    def query(self) -> bool:
        """Whether all that was recorded has happened: nothing was."""
        return True

    def wait(self, stream: Stream | None = None) -> None:
        """What follows in the stream waits for nothing."""

    def synchronize(self) -> None:
        """Wait for what was recorded."""

    def elapsed_time(self, end_event: Event) -> float:
        """ValueError: neither event was recorded."""
        if not (self._timed and end_event._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        raise ValueError("Both events must be recorded before calculating elapsed time.")

    def __repr__(self) -> str:
        flag = int(self._timed)
        return f"torch.Event device_type=cpu, device_index=-1, event_flag={flag}, event_id=0"
