"""The torch alias: its modules resolve to Weft's own objects, and what is missing says so."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

import weft
from weft.compat import alias, report
from weft.compat.names import NAMES, SHARE
from weft.compat.table import BELOW, TABLE


@pytest.fixture(autouse=True)
def _torch():
    """`import torch` gives Weft inside a test, and is gone after it."""
    before = {k: v for k, v in sys.modules.items() if k == "torch" or k.startswith("torch.")}
    assert not before, "the real torch was imported into the test process"
    alias.install()
    yield
    sys.meta_path.remove(alias._FINDER)
    for name in [k for k in sys.modules if k == "torch" or k.startswith("torch.")]:
        del sys.modules[name]


def test_names_are_wefts_own_objects():
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader

    assert torch.Tensor is weft.Tensor and nn.Linear is weft.nn.Linear
    assert F.relu is weft.nn.functional.relu and DataLoader is weft.data.DataLoader
    assert torch.float32 is weft.float32 and torch.optim.Adam is weft.optim.Adam
    assert torch.nn.functional is F and isinstance(F, alias.Face)
    assert torch.compile is weft.compile
    assert torch.autograd.gradcheck is weft.autograd.gradcheck  # a function, though also a module


@pytest.mark.parametrize("face", sorted(TABLE))
def test_every_module_imports_and_its_sources_exist(face):
    module = importlib.import_module(face)
    assert isinstance(module, ModuleType) and module.__name__ == face
    for path in alias.sources(face):
        assert alias.source(path) is not None
    for name in list(alias.names_of(face))[:400]:
        getattr(module, name)


def test_files_below_a_package_have_its_names():
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.modules.utils import _pair
    from torch.optim.lr_scheduler import _LRScheduler

    assert issubclass(weft.nn.BatchNorm3d, _BatchNorm) and issubclass(weft.nn.Conv1d, _ConvNd)
    assert (
        not issubclass(weft.nn.Linear, _ConvNd) and _pair(3) == (3, 3) and _pair((1, 2)) == (1, 2)
    )
    assert issubclass(weft.optim.lr_scheduler.StepLR, _LRScheduler)
    for parent, (names, _) in BELOW.items():
        for name in names.split():
            importlib.import_module(f"{parent}.{name}")


def test_a_missing_name_names_the_nearest():
    import torch

    with pytest.raises(
        AttributeError, match=r"Weft has no torch\.nn\.Linaer; .* torch\.nn\.Linear"
    ):
        _ = torch.nn.Linaer
    with pytest.raises(AttributeError, match=r"no torch\.dropuot"):
        _ = torch.dropuot
    with pytest.raises(ImportError, match=r"Weft has no torch\.nn\.Linaer"):
        from torch.nn import Linaer  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"Weft has no torch\.nonsense"):
        importlib.import_module("torch.nonsense")
    assert not hasattr(torch, "io") and not hasattr(torch, "kernels")  # Weft's own rooms


def test_version_and_package_metadata():
    import torch

    assert torch.__version__ >= "2.1" and torch.__version__ < (3, 0)
    assert torch.__version__ > "2.9.1"  # by numbers, not letters
    assert importlib.metadata.version("torch") == torch.__version__
    assert importlib.util.find_spec("torch.nn") is not None
    assert torch.version.cuda is None


def test_cuda_answers_as_on_a_machine_without_it():
    import torch

    assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
    assert not torch.distributed.is_available() and not torch.backends.mps.is_available()
    torch.cuda.manual_seed_all(3)
    with pytest.raises(AssertionError, match="not compiled with CUDA"):
        torch.cuda.current_device()
    torch.backends.cudnn.benchmark = True
    assert torch.backends.cudnn.benchmark


def test_jit_leaves_things_as_they_are_and_says_so_once():
    import torch

    tracing = importlib.import_module("weft.compat.torch_.tracing")
    tracing._warned.clear()
    m = torch.nn.Linear(2, 2)
    with pytest.warns(UserWarning, match=r"torch\.jit\.script does nothing"):
        assert torch.jit.script(m) is m
    assert torch.jit.trace(m, torch.ones(2)) is m  # no second warning: warnings are errors here

    @torch.jit.ignore
    def f(x):
        return x

    assert f(3) == 3 and torch.jit.isinstance([1], list)


def test_typed_tensors():
    import torch

    t = torch.LongTensor([1, 2])
    assert isinstance(t, torch.LongTensor) and not isinstance(t, torch.FloatTensor)
    assert torch.FloatTensor(2, 3).shape == (2, 3) and torch.FloatTensor().shape == (0,)
    assert torch.FloatTensor([1, 2]).dtype is torch.float32
    with pytest.raises(TypeError, match="expected FloatTensor"):
        torch.FloatTensor(t)
    try:
        torch.set_default_tensor_type("torch.DoubleTensor")
        assert torch.zeros(1).dtype is torch.float64
    finally:
        torch.set_default_tensor_type(torch.FloatTensor)


def test_the_real_torch_is_not_replaced_behind_its_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with pytest.raises(RuntimeError, match="already imported"):
        alias.install()


def test_import_weft_compat_torch_installs_it():
    code = "import weft.compat.torch, torch; print(torch.Tensor.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "weft.tensor", done.stderr


def test_the_list_of_names():
    assert len(NAMES) == len(set(NAMES)) == 1000 and NAMES[0] == "torch.Tensor"
    shares = [SHARE[n] for n in NAMES]
    assert shares == sorted(shares) and shares[-1] > 0.98


def test_no_name_of_the_list_is_a_module_by_mistake():
    assert callable(importlib.import_module("torch").nn.utils.spectral_norm)
    for name in NAMES:
        root, _, last = name.rpartition(".")
        if root.startswith("torch") and alias.is_face(root) and alias.is_face(name):
            found = getattr(importlib.import_module(root), last)
            assert not isinstance(found, alias.Face), name


def test_coverage_is_what_was_promised():
    missing = [n for n in NAMES if not report.exists(n)]
    assert len(set(NAMES[:300]) & set(missing)) <= 4
    assert len(set(NAMES[:700]) & set(missing)) <= 25
    assert len(missing) <= 80, missing


@pytest.mark.parametrize(
    "use",
    [
        lambda: weft.ones(2).cuda(),
        lambda: weft.ones(2).to("cuda"),
        lambda: weft.zeros(2, device="cuda:1"),
        lambda: weft.nn.Linear(2, 2).cuda(),
    ],
)
def test_a_device_that_is_not_there_is_refused_as_torch_refuses(use):
    with pytest.raises(AssertionError, match="Torch not compiled with CUDA enabled"):
        use()
    assert weft.device("cuda:0").index == 0  # naming one is free
