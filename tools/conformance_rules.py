"""What the conformance run compares, how closely, and where Weft differs on purpose."""

# (relative, absolute) by the dtype of a result.  Sums are ordered otherwise than torch's, so
# float32 may differ in its last digits; torch.testing's own defaults are 1.3e-6 and 1e-5.
TOLERANCE = {
    "float64": (1e-7, 1e-7),
    "float32": (2e-5, 2e-5),
    "float16": (2e-3, 2e-3),
    "bfloat16": (1.6e-2, 1.6e-2),
    "complex64": (2e-5, 2e-5),
    "complex128": (1e-7, 1e-7),
}
# Ops whose values are not determined, and why: dtype, shape and flags are still compared.
UNDETERMINED = {
    r"(new_)?empty(_like|_strided|_permuted)?$": "memory as it was found",
    r"resize_(as_)?$": "memory as it was found past the old elements",
    r"(svd|pca)_lowrank$": "built on random projections and on singular vectors' signs",
    r"geqrf$": "reflectors: signs are free",
}
# Ops with results of free sign, and why: what torch's samples make of them is compared instead,
# and its gradients.
FREE_SIGNS = {
    r"(linalg\.)?svd$": "singular vectors",
    r"linalg\.(eigh|eig)$": "eigenvectors",
}
# Ops that choose places: of equal elements any may be named.  Compared instead: what lies there.
TIES = {
    r"(topk|kthvalue|mode)$": "places among equal elements are as torch's quickselect leaves them",
    r"(sort|argsort)$": "not stable unless asked: torch's order of equal elements varies with size",
}
# Samples where Weft differs and keeps to it: (operator, kind or dtype, sample), pattern each, why.
ON_PURPOSE = (
    (r"(special\.)?polygamma", "float32", r", [01]$",
     "torch's trigamma sums few terms: 2.0e-5 from SciPy's, Weft's 4.5e-8"),
    (r"special\.bessel_(j0|y1)$", "float64", "",
     "torch's is 1.9e-7 (j0) and 3.2e-7 (y1) from SciPy's, Weft's 6e-16"),
    (r"as_strided_scatter$", "float64", "",
     "torch's gradient of the base is the cotangent where it was overwritten and 0 where it was"
     " kept; finite differences say the reverse"),
    (r"nn\.functional\.multi_head_attention_forward", "float32",
     r"^float32\[3, 2, 4\], float32\[5, 2, 4\], float32\[5, 2, 4\], 4, 2, .*float32\[4, 4\]",
     "scores of up to 7,054, whose last place moves a weight by 5e-4: both differ from float64's"),
    (r"masked\.logaddexp$", "float64", "",
     "torch's second gradient is NaN at places that the mask hides, Weft's 0"),
    (r"as_strided \(partial_views\)$", "float64", r"\], \(2, 2\), \(1, 2\), storage_offset=0",
     "a leaf that is a view of more than itself, read before its start: Weft refuses"),
    (r"(aminmax|amax|amin)$", "error", r"1, 1, 1, 1, 1, 1, 1, 1, 1",
     "a tensor of 65 dims cannot be made in Weft at all (NumPy's 64)"),
    (r"cov$", "float64", "aweights=float32",
     "the weights' total is a float32 sum, by which all is divided: another order of summands"),
    (r"gradient$", "error", r"3, 3\], spacing=\[int64\[3\], int64\[3\]",
     "a spacing on the meta device, which Weft has not"),
)  # fmt: skip
# Why an op is missing: the first pattern that matches its name.
MISSING = (
    (r"fft\.|stft|istft|complex|polar|conj|imag|angle|^real$|chalf|cfloat|cdouble|view_as_(real|com)",
     "complex32, which Weft has not"),
    (r"sparse|to_dense", "torch's CSR layout and its sampled products"),
    (r"jiterator", "CUDA only"),
    (r"_flash_|_efficient_", "an inner kernel of scaled_dot_product_attention, which is there"),
    (r"^slice|aten|_softmax_backward|_batch_norm_with|_upsample_|_with_indices_b|dropout_backward",
     "only under torch.ops.aten, torch's dispatcher, which Weft has not; its public form is there"),
    (r"_scaled_mm", "8-bit floats"),
    (r"ldl_", "LAPACK's sytrf is not in NumPy; symmetric systems are solved by linalg.solve"),
    (r"hash_tensor", "its result is uint64, which Weft has not"),
)  # fmt: skip
