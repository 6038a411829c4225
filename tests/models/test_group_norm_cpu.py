"""The normalisation in C: it is torch's, more exact, and compiled once on a machine."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden_values import fill, rnd
from models.tiny import CONFIG
from rediffuse.models import layers
from rediffuse.models.group_norm_cpu import load_kernel
from rediffuse.models.inference import for_inference
from rediffuse.models.layers import NUM_GROUPS, GroupNorm
from rediffuse.models.unet import UNetModel

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="a C compiler on Linux is needed"
)
EPS = 1e-5
SIZES = [(1, 32, 3, 4), (1, 64, 32, 32), (3, 96, 7, 5), (1, 128, 65, 33), (16, 128, 8, 8), (2, 2048, 9, 9)]
PROBE = """
from rediffuse.models.group_norm_cpu import load_kernel
print(load_kernel() is not None)
"""


def innermost(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def exact(x: Tensor, weight: Tensor, bias: Tensor, *, silu: bool) -> Tensor:
    """In float64."""
    affine = (one.double() if one.ndim == 2 else one.double().expand(len(x), -1) for one in (weight, bias))
    scale, shift = (one[:, :, None, None] for one in affine)
    y = F.group_norm(x.double(), NUM_GROUPS, eps=EPS) * scale + shift
    return F.silu(y) if silu else y


@pytest.fixture
def kernel():
    found = load_kernel()
    assert found is not None
    return found


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def test_a_mean_of_thirty_deviations_costs_two_digits(kernel):
    """The variance is the mean square less the square of the mean."""
    x, ones, zeros = innermost(rnd("x", 2, 64, 32, 32) + 30), torch.ones(64), torch.zeros(64)
    y = kernel(x, NUM_GROUPS, ones, zeros, EPS, silu=False)
    assert (y.double() - exact(x, ones, zeros, silu=False)).abs().max() < 2e-4


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3)], ids=str)
def test_it_is_the_normalisation_of_every_size(kernel, size, dtype, tolerance, silu):
    x = innermost((2 * rnd("x", *size) + 3).to(dtype))
    rows = (rnd("weight", size[0], size[1]), rnd("bias", size[0], size[1]))
    for weight, bias in ((rows[0][0], rows[1][0]), rows):
        y = kernel(x, NUM_GROUPS, weight, bias, EPS, silu=silu)
        assert (y.dtype, y.shape, y.stride()) == (x.dtype, x.shape, x.stride())
        expected = exact(x, weight, bias, silu=silu)
        assert ((y.double() - expected).abs() / expected.abs().clamp(min=1)).max() < tolerance


@pytest.mark.usefixtures("threads")
def test_the_bits_do_not_depend_on_the_rest_of_the_batch(kernel):
    x, weight, bias = innermost(rnd("x", 5, 64, 40, 30)), rnd("weight", 64), rnd("bias", 64)
    together = kernel(x, NUM_GROUPS, weight, bias, EPS, silu=True)
    alone = [kernel(innermost(one[None]), NUM_GROUPS, weight, bias, EPS, silu=True) for one in x]
    assert torch.allclose(torch.cat(alone), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silu_is_right_for_all_numbers(kernel, dtype):
    """Through a normalisation that changes nothing: the weights are 0, and the bias is the number."""
    numbers = torch.cat([torch.linspace(-120, 120, 4095), torch.tensor([3e38])])
    x, zeros = innermost(torch.zeros(4096 // 32, 32, 1, 1, dtype=dtype)), torch.zeros(4096 // 32, 32)
    y = kernel(x, NUM_GROUPS, zeros, numbers.reshape(-1, 32), EPS, silu=True).flatten()
    expected = F.silu(numbers.double()).to(dtype).double()
    tolerance = 3e-7 if dtype == torch.float32 else 8e-3
    assert ((y.double() - expected).abs() <= tolerance * expected.abs() + 1e-36).all()


def test_what_is_not_a_number_stays_so_in_its_group_alone(kernel):
    for dtype in (torch.float32, torch.bfloat16):
        x = innermost(rnd("x", 2, 64, 4, 4).to(dtype))
        x[1, 7, 2, 2] = float("nan")
        y = kernel(x, NUM_GROUPS, torch.ones(64), torch.zeros(64), EPS, silu=True)
        assert torch.isnan(y[1, 6:8]).all()
        assert torch.isnan(y).sum() == 2 * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_with_it_equals_one_without(dtype, monkeypatch):
    network = for_inference(fill(UNetModel(CONFIG)).eval(), dtype)
    calls = []

    def used():
        calls.append(1)
        return load_kernel()

    x, t = rnd("x", 3, 3, 8, 8), torch.tensor([3, 500, 900])
    with torch.inference_mode():
        monkeypatch.setattr(layers, "load_kernel", used)
        with_it = network(x, t)
        monkeypatch.setattr(layers, "load_kernel", lambda: None)
        without = network(x, t)
    assert len(calls) == sum(isinstance(module, GroupNorm) for module in network.modules())
    assert torch.allclose(with_it, without, atol=1e-4 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize(
    "x",
    [
        rnd("x", 2, 64, 8, 8),
        innermost(rnd("x", 2, 64, 8, 8)).double(),
        innermost(rnd("x", 2, 64, 8, 8)).half(),
        rnd("x", 2, 64, 8),
        rnd("x", 2, 64, 4, 4, 4),
    ],
    ids=["outermost", "float64", "float16", "1d", "3d"],
)
def test_other_tensors_are_left_to_torch(x):
    assert layers._fused_kernel(x, torch.ones(64)) is None


def test_weights_in_half_precision_are_left_to_torch():
    assert layers._fused_kernel(innermost(rnd("x", 2, 64, 8, 8)), torch.ones(64).bfloat16()) is None


def test_trainings_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(layers, "load_kernel", lambda: pytest.fail("has no gradients"))
    x = innermost(rnd("x", 2, 64, 8, 8)).requires_grad_()
    GroupNorm(64).silu(x).sum().backward()
    assert x.grad is not None


def probe(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load it in a new process with an empty cache."""
    program = f"import logging; logging.basicConfig(level=logging.INFO){PROBE}"
    everything = {"PATH": "/usr/local/bin:/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.run([sys.executable, "-c", program], env=everything, capture_output=True, text=True, check=True)


def test_it_is_compiled_once(tmp_path: Path) -> None:
    assert probe(tmp_path).stdout == "True\n"
    (library,) = (tmp_path / "rediffuse" / "kernels").iterdir()
    begun = library.stat().st_mtime_ns
    assert probe(tmp_path).stdout == "True\n"
    assert [path.stat().st_mtime_ns for path in library.parent.iterdir()] == [begun]


@pytest.mark.parametrize(
    ("compiler", "said"),
    [("no-such-compiler", ""), ("false", "returned non-zero exit status"), ("true", "No such file")],
)
def test_without_a_working_compiler_torchs_is_used(tmp_path: Path, compiler: str, said: str) -> None:
    run = probe(tmp_path, CC=compiler)
    assert run.stdout == "False\n"
    assert said in run.stderr
    assert ("torch's is used" in run.stderr) == bool(said)
    assert list((tmp_path / "rediffuse" / "kernels").glob("*")) == []


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "rediffuse" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    run = probe(tmp_path)
    assert (run.stdout, list(folder.iterdir())) == ("False\n", [])
    assert "others may write to it" in run.stderr


def test_a_damaged_library_is_not_the_end(tmp_path: Path) -> None:
    probe(tmp_path)
    (library,) = (tmp_path / "rediffuse" / "kernels").iterdir()
    library.write_bytes(b"no program")
    assert probe(tmp_path).stdout == "False\n"


def test_a_folder_that_cannot_be_written_is_not_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rediffuse").write_text("in the way")
    with caplog.at_level(logging.INFO):
        assert probe(tmp_path).stdout == "False\n"
