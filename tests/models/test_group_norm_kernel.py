"""The Triton kernels for normalisation: run by Triton's interpreter on the CPU, and compiled for a GPU.

The interpreter must be chosen before Triton is imported, so it runs in a process of its own: `main`.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from golden_values import fill
from models.tiny import CONFIG
from rediffuse.models.inference import for_inference
from rediffuse.models.layers import NUM_GROUPS
from rediffuse.models.unet import UNetModel

pytest.importorskip("triton")

CHANNELS = (32, 64, 96, 128, 192, 256, 384, 512, 576, 768, 960, 1024, 1152, 1280, 1344, 1536, 1792, 2048)
"""Those of all normalisations in the embedded network and in the published ones."""
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""The largest difference from float64, relative to values above 1."""


@pytest.fixture(scope="module")
def differences() -> dict[str, list[float]]:
    """What `main` printed."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_they_equal_torchs_for_the_channels_of_all_networks(differences: dict[str, list[float]]) -> None:
    assert len(differences["channels"]) == len(CHANNELS)
    assert max(differences["channels"]) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES.items(), ids=str)
def test_they_equal_torchs_for_maps_of_many_sizes(
    dtype: torch.dtype, tolerance: float, differences: dict[str, list[float]]
) -> None:
    assert max(differences[str(dtype)]) < tolerance


def test_a_network_with_them_equals_one_without(differences: dict[str, list[float]]) -> None:
    assert max(differences["network"]) < 1e-4


def test_a_training_does_not_use_them(differences: dict[str, list[float]]) -> None:
    assert differences["gradient"] == [0]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_they_compile_for_a_gpu(dtype: str) -> None:
    """Triton's compiler needs no GPU, and refuses what its interpreter takes, such as a variable of two types.

    Takes seconds: it compiles to machine code.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rediffuse.models import group_norm_kernel

    types = {"x": f"*{dtype}", "y": f"*{dtype}", "moments": "*fp32", "weight": "*fp32", "bias": "*fp32", "eps": "fp32"}
    block = {"PER_GROUP": 6, "GROUPS": 8, "GROUP_LANES": 8, "ROWS": 32}
    for kernel, constants in (
        (group_norm_kernel._measure, block),
        (group_norm_kernel._normalise, {**block, "CHUNKS": 32, "SILU": True}),
    ):
        of_constants = dict.fromkeys(constants, "constexpr")
        signature = {name: (types | of_constants).get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
        assert compiled.asm["cubin"]


def main() -> None:
    """Print by how much the results of the kernels in the interpreter differ from those of torch's operations."""
    from rediffuse.models import layers
    from rediffuse.models.group_norm_kernel import group_norm

    def difference(shape: tuple[int, ...], dtype: torch.dtype, *, silu: bool = True, each: bool = False) -> float:
        x = (3 * torch.randn(shape) + 20).to(dtype).to(memory_format=torch.channels_last)
        weight, bias = torch.randn(2, *(shape[:2] if each else shape[1:2]))
        y = group_norm(x, NUM_GROUPS, weight, bias, 1e-5, silu=silu)
        assert (y.dtype, y.stride()) == (x.dtype, x.stride())
        expected = F.group_norm(x.double(), NUM_GROUPS, eps=1e-5) * weight[..., None, None] + bias[..., None, None]
        expected = F.silu(expected) if silu else expected
        return ((y - expected).abs() / expected.abs().clamp(min=1)).max().item()

    def predictions(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return for_inference(network, torch.float32)(x, timesteps)

    def gradient_of(network: UNetModel, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        network.zero_grad()
        network(x, timesteps).square().sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])

    torch.manual_seed(0)
    found = {"channels": [difference((1, channels, 2, 2), torch.float32) for channels in CHANNELS]}
    for dtype in TOLERANCES:
        found[str(dtype)] = [
            difference((2, 64, 4, 5), dtype, each=True),
            difference((1, 32, 47, 49), dtype),  # several chunks of several loads each
            difference((1, 96, 3, 3), dtype, silu=False),
        ]
    network = fill(UNetModel(CONFIG)).eval()
    x, one, each = torch.randn(2, 3, 8, 8), torch.tensor(3).expand(2), torch.tensor([3, 700])
    plain, gradient = [predictions(x, one), predictions(x, each)], gradient_of(network, x, each)
    layers._fused_kernel = lambda x, weight: group_norm  # as on a GPU
    fused = [predictions(x, one), predictions(x, each)]
    found["network"] = [(a - b).abs().max().item() for a, b in zip(plain, fused, strict=True)]
    assert max(found["network"]) > 0  # the kernels were used: they round differently
    found["gradient"] = [(gradient_of(network, x, each) - gradient).abs().max().item()]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
