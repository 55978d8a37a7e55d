"""Which Weft modules answer for each module of torch, in order.

A face that torch has only to choose among devices or its own implementations is a small module
under compat/torch_/.
"""

from __future__ import annotations

_T = "weft.compat.torch_."
_NN = "weft.nn"

TABLE: dict[str, tuple[str, ...]] = {
    "torch": (_T + "top", "weft", _T + "absent_dtypes"),
    "torch._C": (_T + "c",),
    "torch._custom_ops": (_T + "library",),
    "torch._dynamo.utils": (_T + "dynamo",),
    "torch._dynamo": (_T + "dynamo",),
    "torch.amp": ("weft.amp",),
    "torch.amp.autocast_mode": ("weft.amp",),
    "torch.amp.grad_scaler": ("weft.amp",),
    "torch._prims_common": (_T + "dynamo",),
    "torch.ao": (),
    "torch.ao.quantization": (_T + "ao",),
    "torch.autograd": (_T + "autograd", "weft.autograd"),
    "torch.autograd.anomaly_mode": ("weft.autograd",),
    "torch.autograd.function": ("weft.autograd.function",),
    "torch.autograd.functional": ("weft.autograd.functional",),
    "torch.autograd.grad_mode": ("weft.autograd",),
    "torch.autograd.gradcheck": ("weft.autograd",),
    "torch.autograd.graph": ("weft.autograd.graph",),
    "torch.autograd.profiler": (_T + "profiler",),
    "torch.autograd.variable": (_T + "autograd",),
    "torch.backends": (_T + "backends",),
    "torch.backends.cpu": (_T + "backends_cpu",),
    "torch.backends.cuda": (_T + "backends_cuda",),
    "torch.backends.cudnn": (_T + "backends_cudnn",),
    "torch.backends.mkldnn": (_T + "backends_cpu",),
    "torch.backends.mps": (_T + "backends_cpu",),
    "torch.backends.openmp": (_T + "backends_cpu",),
    "torch.compiler": (_T + "compiler",),
    "torch.cpu": (_T + "cpu",),
    "torch.cpu.amp": (_T + "cpu_amp",),
    "torch.cuda": (_T + "cuda",),
    "torch.cuda.amp": (_T + "cuda_amp",),
    "torch.cuda.amp.autocast_mode": (_T + "cuda_amp",),
    "torch.cuda.amp.grad_scaler": (_T + "cuda_amp",),
    "torch.cuda.nvtx": (_T + "nvtx",),
    "torch.distributed": (_T + "distributed",),
    "torch.distributions": ("weft.distributions",),
    "torch.fft": (),
    "torch.func": ("weft.autograd.func",),
    "torch.functional": ("weft",),
    "torch.fx": (_T + "fx",),
    "torch.hub": (_T + "hub",),
    "torch.jit": (_T + "jit",),
    "torch.jit.annotations": (_T + "jit_annotations",),
    "torch.library": (_T + "library",),
    "torch.linalg": ("weft.linalg",),
    "torch.mps": (_T + "mps",),
    "torch.mtia": (_T + "xpu",),
    "torch.multiprocessing": (_T + "multiprocessing", "multiprocessing"),
    "torch.nn": (_NN, _T + "parallel"),
    "torch.nn.attention": (_T + "attention",),
    "torch.nn.functional": ("weft.nn.functional",),
    "torch.nn.init": ("weft.nn.init",),
    "torch.nn.modules": (_T + "modules", _NN),
    "torch.nn.parallel": (_T + "parallel",),
    "torch.nn.parameter": (_T + "parameter", "weft.nn.parameter"),
    "torch.nn.quantized": (_T + "ao",),
    "torch.nn.utils": (_T + "nn_utils", "weft.nn.utils"),
    "torch.nn.utils.clip_grad": ("weft.nn.utils",),
    "torch.nn.utils.convert_parameters": ("weft.nn.utils",),
    "torch.nn.utils.fusion": ("weft.nn.utils.fusion",),
    "torch.nn.utils.parametrizations": ("weft.nn.utils.parametrizations",),
    "torch.nn.utils.parametrize": ("weft.nn.utils.parametrize",),
    "torch.nn.utils.rnn": ("weft.nn.utils.rnn",),
    "torch.nn.utils.spectral_norm": ("weft.nn.utils",),
    "torch.nn.utils.weight_norm": ("weft.nn.utils",),
    "torch.onnx.symbolic_helper": (_T + "onnx_symbolic",),
    "torch.onnx.symbolic_opset11": (_T + "onnx_symbolic",),
    "torch.onnx": (_T + "onnx",),
    "torch.ops": (_T + "ops",),
    "torch.optim": ("weft.optim",),
    "torch.optim.lr_scheduler": (_T + "lr_scheduler", "weft.optim.lr_scheduler"),
    "torch.optim.optimizer": (_T + "optimizer", "weft.optim.optimizer"),
    "torch.optim.swa_utils": ("weft.optim.swa_utils",),
    "torch.overrides": (_T + "overrides",),
    "torch.profiler": (_T + "profiler",),
    "torch.quantization": (_T + "ao",),
    "torch.random": ("weft.ops.random", "weft"),
    "torch.serialization": (_T + "serialization",),
    "torch.special": (_T + "special",),
    "torch.storage": ("weft.ops.memory_view",),
    "torch.testing": (_T + "testing",),
    "torch.types": (_T + "types",),
    "torch.utils": (_T + "utils",),
    "torch.utils._pytree": (_T + "pytree",),
    "torch.utils.checkpoint": ("weft.autograd.checkpoint",),
    "torch.utils.data": ("weft.data",),
    "torch.utils.data._utils": ("weft.data",),
    "torch.utils.data._utils.collate": ("weft.data",),
    "torch.utils.data.dataloader": ("weft.data",),
    "torch.utils.data.dataset": ("weft.data",),
    "torch.utils.data.distributed": ("weft.data",),
    "torch.utils.data.sampler": ("weft.data",),
    "torch.utils.hooks": (_T + "hooks",),
    "torch.utils.model_zoo": (_T + "hub",),
    "torch.utils.tensorboard": ("weft.utils.tensorboard",),
    "torch.utils.tensorboard.writer": ("weft.utils.tensorboard",),
    "torch.version": (_T + "version",),
    "torch.xpu": (_T + "xpu",),
}

# Files of these packages in torch, whose names Weft has in one place.
BELOW: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch.nn.modules": (
        "activation adaptive batchnorm channelshuffle container conv distance dropout flatten "
        "fold instancenorm lazy linear loss module normalization padding pixelshuffle pooling "
        "rnn sparse transformer upsampling utils",
        (_T + "modules", _NN),
    ),
    "torch.nn.parallel": (
        "data_parallel distributed replicate scatter_gather parallel_apply",
        (_T + "parallel",),
    ),
    "torch.optim": (
        "adadelta adagrad adam adamw adamax asgd lbfgs nadam radam rmsprop rprop sgd sparse_adam",
        ("weft.optim",),
    ),
    "torch.distributions": (
        "bernoulli beta binomial categorical cauchy constraints dirichlet distribution "
        "exponential gamma geometric gumbel half_normal independent kl laplace log_normal "
        "lowrank_multivariate_normal mixture_same_family multinomial multivariate_normal "
        "normal one_hot_categorical pareto poisson relaxed_bernoulli relaxed_categorical studentT "
        "transformed_distribution transforms uniform utils von_mises weibull",
        ("weft.distributions",),
    ),
}
