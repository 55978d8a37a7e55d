"""Devices: Weft computes on the CPU; other names parse so that programs can ask; it refuses."""

from __future__ import annotations

_KNOWN = ("cpu", "cuda", "mps", "meta", "xpu")


class device:
    """`device("cpu")`, `device("cuda:0")`, `device("cuda", 1)`; only cpu can hold tensors."""

    __slots__ = ("type", "index")

    def __init__(self, type: str | device, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
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


cpu = device("cpu")


def require_cpu(d: device | str | None, op: str) -> None:
    """Raise unless `d` is the CPU (or None): AssertionError for cuda and xpu, as torch."""
    if d is None:
        return
    d = d if isinstance(d, device) else device(d)
    if d.type != "cpu":
        why = f"{op}: device '{d}' is not available: Weft computes on the CPU only"
        if d.type in ("cuda", "xpu"):  # the words that programs look for
            raise AssertionError(f"Torch not compiled with {d.type.upper()} enabled. {why}")
        raise RuntimeError(why)
