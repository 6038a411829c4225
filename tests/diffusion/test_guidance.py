import torch
from torch import nn
from torch.nn import functional as F

from rediffuse.diffusion.guidance import classifier_guidance


def test_classifier_guidance_is_the_gradient_of_the_chosen_class():
    weights = torch.randn(5, 12, dtype=torch.float64)
    x, y = torch.randn(3, 3, 2, 2, dtype=torch.float64), torch.tensor([4, 0, 2])
    gradient = classifier_guidance(lambda x, t: x.flatten(1) @ weights.T, scale=2.0)(x, torch.zeros(3), y=y)
    p = F.softmax(x.flatten(1) @ weights.T, dim=-1)
    expected = 2 * (weights[y] - p @ weights)
    torch.testing.assert_close(gradient.flatten(1), expected)


def test_guidance_leaves_no_gradient_in_the_classifier():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        classifier_guidance(lambda x, t: classifier(x), 1.0)(
            torch.randn(2, 1, 2, 2), torch.zeros(2), y=torch.tensor([0, 1])
        )
    assert all(parameter.grad is None for parameter in classifier.parameters())
