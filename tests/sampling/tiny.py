"""Tiny random models: their samples are noise, but reproducible."""

from golden_values import fill
from rediffuse.diffusion.config import ProcessConfig, ScheduleName
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import ClassifierModel, DiffusionModel, Provenance

PROVENANCE = Provenance(source="tiny", sha256="0" * 64)


def unet(num_classes: int | None = None) -> DiffusionModel:
    """16 px; two resolutions."""
    config = UNetConfig(
        image_size=16, model_channels=32, num_res_blocks=1, channel_mult=(1, 1), num_classes=num_classes
    )
    process = ProcessConfig(schedule="cosine", variance="fixed_large")
    return DiffusionModel(network=fill(UNetModel(config)), process_config=process, provenance=PROVENANCE)


def without_noise(num_classes: int | None = None) -> DiffusionModel:
    """`unet` that predicts eps = 0 for every input."""
    model = unet(num_classes)
    for parameter in model.network.out[-1].parameters():
        parameter.data.zero_()
    return model


def upsampler(num_classes: int | None = None) -> DiffusionModel:
    """8 to 16 px."""
    config = UNetConfig(
        image_size=16, model_channels=32, num_res_blocks=1, channel_mult=(1, 1), num_classes=num_classes
    )
    return DiffusionModel(
        network=fill(SuperResModel(config)),
        process_config=ProcessConfig(variance="fixed_large"),
        provenance=PROVENANCE,
        training={"small_size": 8},
    )


def classifier(num_classes: int = 3, image_size: int = 16, schedule: ScheduleName = "cosine") -> ClassifierModel:
    """A classifier of noisy images, with the noise schedule of `unet`."""
    config = EncoderConfig(
        image_size=image_size, model_channels=32, num_res_blocks=1, channel_mult=(1, 1), out_channels=num_classes
    )
    process = ProcessConfig(schedule=schedule, variance="fixed_large")
    return ClassifierModel(network=fill(EncoderUNetModel(config)), process_config=process, provenance=PROVENANCE)
