from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.script_flags import ProcessFlags, process_config


def test_every_flag_of_the_scripts_changes_its_own_field():
    usual = ProcessConfig(schedule="linear", num_timesteps=1000, prediction="eps", variance="fixed_large")
    assert process_config(ProcessFlags()) == usual
    other = ProcessFlags(
        diffusion_steps=50, noise_schedule="cosine", sigma_small=True, predict_xstart=True, rescale_timesteps=True
    )
    assert process_config(other) == ProcessConfig(
        schedule="cosine", num_timesteps=50, prediction="x_0", variance="fixed_small", rescale_timesteps=True
    )


def test_a_learned_variance_is_between_the_fixed_ones_whatever_these_are():
    for small in (False, True):
        assert process_config(ProcessFlags(learn_sigma=True, sigma_small=small)).variance == "learned_range"
