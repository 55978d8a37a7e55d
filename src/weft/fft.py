"""weft.fft: what of torch.fft needs no complex numbers."""

from weft.core.overrides import cover_functions as _cover
from weft.ops.histogram import fftshift, ifftshift

__all__ = ["fftshift", "ifftshift"]

_cover(globals(), "torch.fft")
