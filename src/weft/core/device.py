"""Devices: Weft computes on the CPU; other names parse so that programs can ask; it refuses."""

from __future__ import annotations

from weft.core.handle import state

_KNOWN = ("cpu", "cuda", "mps", "meta", "xpu")


class device:
    """`device("cpu")`, `device("cuda:0")`, `device("cuda", 1)`; only cpu can hold tensors."""

    __slots__ = ("type", "index")

    def __init__(self, type: str | device, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if not isinstance(type, (str, int)) or isinstance(type, bool):
            raise TypeError(
                f"argument 'device' must be torch.device or str, not {type.__class__.__name__}"
            )
        name, _, number = str(type).partition(":")
        if name not in _KNOWN or (number and not number.isdigit()):
            raise RuntimeError(
                f"Expected one of {', '.join(_KNOWN)} device type at start of device string: {type}"
            )
        if number and index is not None:
            raise RuntimeError(f"type (string) must not include an index: {type}")
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> tuple:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        """Inside, functions that make tensors make them on this device."""
        state.devices = (*state.devices, self)
        return self

    def __exit__(self, *exc: object) -> None:
        state.devices = state.devices[:-1]


cpu = device("cpu")


def require_cpu(d: device | str | None, op: str) -> None:
    """Raise unless `d` is the CPU (or None: the default): AssertionError for cuda and xpu."""
    if d.__class__ is str and d == "cpu":
        return
    if d is None:
        if not state.devices:
            return
        found = state.devices[-1]
    else:
        found = d if isinstance(d, device) else device(d)
    if found.type != "cpu":
        why = f"{op}: device '{found}' is not available: Weft computes on the CPU only"
        if found.type in ("cuda", "xpu"):  # the words that programs look for
            raise AssertionError(f"Torch not compiled with {found.type.upper()} enabled. {why}")
        raise RuntimeError(why)
