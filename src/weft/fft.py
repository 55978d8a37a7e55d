"""weft.fft: what of torch.fft needs no complex numbers."""

from weft.ops.histogram import fftshift, ifftshift

__all__ = ["fftshift", "ifftshift"]
