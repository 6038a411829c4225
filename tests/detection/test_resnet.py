from pathlib import Path

import pytest
import torch

import golden_values
import resnet50
from rediffuse.detection.resnet import ResNet50, inflate_stem, load_resnet50
from rediffuse.errors import CheckpointError


@pytest.fixture(scope="module")
def network() -> ResNet50:
    network = golden_values.fill(ResNet50())
    assert isinstance(network, ResNet50)
    return network


def test_logit_is_torchvisions(network: ResNet50):
    _, arrays = golden_values.load("resnet50")
    with torch.no_grad():
        logit = network(golden_values.rnd("resnet50.x", 2, 3, 224, 224))
    assert golden_values.relative_error(logit, arrays["logit"]) < 2e-5


def test_logit_is_that_of_a_second_implementation_with_torchvisions_names():
    state, x = resnet50.random_state(0), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = ResNet50().eval()
    network.load_state_dict(state)  # strict: the names and shapes are the same
    with torch.no_grad():
        assert golden_values.relative_error(network(x), resnet50.logits(state, x)) < 2e-5


def test_parameters_are_those_of_resnet50(network: ResNet50):
    published = 25_557_032 - 999 * 2049  # ImageNet has 1000 classes, a detector one logit
    assert sum(parameter.numel() for parameter in network.parameters()) == published
    assert len(network.state_dict()) == 320


def test_weights_begin_as_in_he_et_al():
    torch.manual_seed(0)
    for name, module in ResNet50().named_modules():
        if isinstance(module, torch.nn.Conv2d):  # arXiv:1502.01852, Eq. 14
            outputs = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.05), name


def test_original_dire_checkpoint_is_unwrapped(network: ResNet50, tmp_path: Path):
    torch.save({"model": network.state_dict(), "optimizer": {}, "total_steps": 1}, tmp_path / "dire.pth")
    loaded = load_resnet50(tmp_path / "dire.pth")
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_inflated_stem_keeps_the_output_for_repeated_channels(network: ResNet50):
    wide = ResNet50(in_channels=12).eval()
    wide.load_state_dict(inflate_stem(network.state_dict(), 12))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(wide(x.repeat(1, 4, 1, 1)), network(x), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_gives_the_number_of_outputs_and_is_widened_to_the_channels_asked_for(tmp_path: Path):
    torch.manual_seed(0)
    saved = ResNet50(num_outputs=5).eval()
    torch.save(saved.state_dict(), tmp_path / "resnet50.pth")
    loaded = load_resnet50(tmp_path / "resnet50.pth", in_channels=6)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x.repeat(1, 2, 1, 1)), saved(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", ["conv1.weight", "fc.weight"])
def test_what_is_no_resnet_is_refused_with_its_name(kept: str, tmp_path: Path):
    torch.save({kept: torch.zeros(1, 3)}, tmp_path / "vgg.pt")
    message = rf"^{tmp_path}/vgg\.pt: not a ResNet-50: conv1\.weight or fc\.weight is missing$"
    with pytest.raises(CheckpointError, match=message):
        load_resnet50(tmp_path / "vgg.pt")


def test_checkpoint_of_another_architecture_is_refused_with_its_name(tmp_path: Path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(1, 512)}, tmp_path / "resnet18.pt")
    with pytest.raises(CheckpointError, match=r"resnet18\.pt: does not fit this ResNet50: .* missing: bn1\.weight"):
        load_resnet50(tmp_path / "resnet18.pt")
    with pytest.raises(CheckpointError, match="3 channels cannot be repeated to 5"):
        inflate_stem({"conv1.weight": torch.zeros(64, 3, 7, 7)}, 5)
