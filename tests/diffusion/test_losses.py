import pytest
import torch

from golden_processes import GoldenProcess
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.losses import training_losses


def test_training_losses_equal_the_original(golden: GoldenProcess):
    v = golden.values
    losses = training_losses(golden.process, golden.model, v["x0"], v["ts"], v["noise"], golden.loss_type)
    assert {f"train_{name}" for name in losses} == {name for name in v if name.startswith("train_")}
    for name, loss in losses.items():
        assert golden.error(f"train_{name}", loss) < 2e-6


def test_the_bound_of_a_hybrid_loss_trains_the_variance_alone():
    process = ProcessConfig(num_timesteps=50, variance="learned_range").build()
    output = torch.zeros(2, 2, 4, requires_grad=True)
    x_0, t = torch.rand(2, 1, 4), torch.tensor([0, 5])
    losses = training_losses(process, lambda x, t: output, x_0, t, torch.randn(2, 1, 4))
    (gradient,) = torch.autograd.grad(losses["vb"].sum(), output)
    assert (gradient[:, :1] == 0).all()
    assert (gradient[:, 1:] != 0).any()


@pytest.mark.parametrize(
    ("prediction", "perfect"), [("eps", "noise"), ("x_0", "x_0"), ("x_prev", "mean"), ("v", "v"), ("flow", "flow")]
)
def test_a_perfect_prediction_has_no_error(prediction: str, perfect: str):
    process = ProcessConfig(num_timesteps=50, prediction=prediction, variance="fixed_small").build()  # type: ignore[arg-type]
    x_0, noise, t = torch.randn(3, 1, 4), torch.randn(3, 1, 4), torch.tensor([0, 4, 9])
    mean = process.posterior(x_0, process.q_sample(x_0, t, noise), t).mean
    answer = {"noise": noise, "x_0": x_0, "mean": mean, "v": process.v_from_x_0(x_0, t, noise), "flow": noise - x_0}[
        perfect
    ]
    loss = training_losses(process, lambda x, t: answer, x_0, t, noise)["loss"]
    torch.testing.assert_close(loss, torch.zeros(3))


def test_the_network_gets_the_conditioning_in_a_training():
    process = ProcessConfig(num_timesteps=50, variance="fixed_small").build()
    x_0, noise, t = torch.randn(3, 1, 4), torch.randn(3, 1, 4), torch.tensor([0, 4, 9])
    loss = training_losses(process, lambda x, t, y: y, x_0, t, noise, conditioning={"y": noise})["loss"]
    torch.testing.assert_close(loss, torch.zeros(3))


def test_an_unknown_loss_is_no_mean_squared_error():
    process, x_0 = ProcessConfig(num_timesteps=50, variance="fixed_small").build(), torch.zeros(1, 1, 4)
    losses = training_losses(process, lambda x, t: x, x_0, torch.tensor([0]), torch.ones_like(x_0))
    assert list(losses) == ["loss", "mse"]
    with pytest.raises(AssertionError, match="mean"):
        training_losses(process, lambda x, t: x, x_0, torch.tensor([0]), x_0, "mean")  # type: ignore[arg-type]
