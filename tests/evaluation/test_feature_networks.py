"""Features from TorchScript files: spatial ones only from the published layout; errors for other files."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from feature_networks import Classifier, Detour, Inception, Logits, Maps, save_inception, save_script
from rediffuse.errors import CheckpointError, InputError
from rediffuse.evaluation.features import FeatureNetwork, load_feature_network
from rediffuse.files import sha256_of

CPU = torch.device("cpu")


def script(path: Path) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path)


def images(n: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(n)).to(torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(10, 10), (32, 48), (299, 299), (320, 301)])
def test_layers_called_one_by_one_are_the_network_at_any_size(
    height: int, width: int, network: FeatureNetwork, inception: Path
) -> None:
    x, whole = images(3, height, width), script(inception)
    seen = network(x)
    torch.testing.assert_close(seen.pooled, whole(x, return_features=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen.probabilities, whole(x, no_output_bias=True), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(seen.probabilities, whole(x), atol=1e-3)


def test_spatial_features_are_the_first_seven_channels_innermost(network: FeatureNetwork, inception: Path) -> None:
    x = images(2, 299, 299)
    layers = script(inception).layers
    maps = layers.mixed_6.conv(layers.conv(layers.pool((x.float() - 128) / 128)))  # (2, 9, 6, 6)
    spatial = network(x).spatial
    assert spatial is not None
    torch.testing.assert_close(spatial.view(2, *maps.shape[2:], 7), maps[:, :7].movedim(1, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (Detour, "mixed_6", "its layers, called one by one, give other features than the network itself"),
        (Inception, "mixed_5", "it has no layers.mixed_6.conv"),
    ],
)
def test_a_network_built_otherwise_has_no_spatial_features_and_says_why(
    kind: type[Inception], name: str, reason: str, tmp_path: Path
) -> None:
    path = save_inception(tmp_path / "network.pt", kind, name)
    network = load_feature_network(path, device=CPU)
    x = images(2, 16, 16)
    seen = network(x)
    assert (network.why_no_spatial, seen.spatial) == (reason, None)
    assert torch.equal(seen.pooled, script(path)(x, return_features=True))


def test_another_checksum_is_refused_before_anything_is_run(inception: Path, tmp_path: Path) -> None:
    assert load_feature_network(inception, device=CPU, sha256=sha256_of(inception).upper()).why_no_spatial == ""
    with pytest.raises(CheckpointError, match="but 00 is expected; nothing of it was run"):
        load_feature_network(inception, device=CPU, sha256="00")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Classifier(), "cannot be called like the Inception network, .*return_features"),
        (Maps(), r"return_features=True gives \(2, 3, 32, 32\) for 2 images; \(N, D\) is needed"),
        (Logits(), "no_output_bias=True gives rows that sum to .*; probabilities are needed"),
    ],
)
def test_another_calling_convention_is_one_line(network: nn.Module, message: str, tmp_path: Path) -> None:
    path = save_script(network, tmp_path / "network.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_feature_network(path, device=CPU)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_torchscript_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    with pytest.raises(InputError, match=r"network\.pt: there is no such file"):
        load_feature_network(path, device=CPU)
    for content in (b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"network\.pt: not a TorchScript file") as caught:
            load_feature_network(path, device=CPU)
        assert "\n" not in str(caught.value)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a TorchScript file"):
        load_feature_network(path, device=CPU)
