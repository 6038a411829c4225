"""A program like guided-diffusion's classifier_sample: samples that a classifier of noisy images guides."""

import argparse
import os

import numpy as np
import torch as th
import torch.distributed as dist
import torch.nn.functional as F
from guided_diffusion import dist_util, logger
from guided_diffusion.script_util import (
    NUM_CLASSES,
    add_dict_to_argparser,
    args_to_dict,
    classifier_defaults,
    create_classifier,
    create_model_and_diffusion,
    model_and_diffusion_defaults,
)


def main():
    args = parser().parse_args()
    dist_util.setup_dist()
    logger.configure(dir=args.out)
    model, diffusion = create_model_and_diffusion(**args_to_dict(args, model_and_diffusion_defaults().keys()))
    model.load_state_dict(dist_util.load_state_dict(args.model_path, map_location="cpu"))
    model.to(dist_util.dev()).eval()
    classifier = create_classifier(**args_to_dict(args, classifier_defaults().keys()))
    classifier.load_state_dict(dist_util.load_state_dict(args.classifier_path, map_location="cpu"))
    classifier.to(dist_util.dev()).eval()

    def cond_fn(x, t, y=None):
        assert y is not None
        with th.enable_grad():
            x_in = x.detach().requires_grad_(True)
            log_probs = F.log_softmax(classifier(x_in, t), dim=-1)
            selected = log_probs[range(len(y)), y.view(-1)]
            return th.autograd.grad(selected.sum(), x_in)[0] * args.classifier_scale

    def model_fn(x, t, y=None):
        return model(x, t, y if args.class_cond else None)

    classes = th.randint(low=0, high=NUM_CLASSES, size=(args.batch_size,), device=dist_util.dev())
    sample = diffusion.p_sample_loop(
        model_fn,
        (args.batch_size, 3, args.image_size, args.image_size),
        model_kwargs={"y": classes},
        cond_fn=cond_fn,
        device=dist_util.dev(),
    )
    pixels = ((sample + 1) * 127.5).clamp(0, 255).to(th.uint8).permute(0, 2, 3, 1).contiguous()
    arrays = []
    for values in (pixels, classes):
        gathered = [th.zeros_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, values)
        arrays.append(th.cat(gathered)[: args.num_samples].cpu().numpy())
    if dist.get_rank() == 0:
        np.savez(os.path.join(logger.get_dir(), "samples.npz"), *arrays)  # noqa: PTH118
    dist.barrier()


def parser():
    flags = {
        "num_samples": 2,
        "batch_size": 2,
        "model_path": "",
        "classifier_path": "",
        "classifier_scale": 1.0,
        "out": None,
    }
    flags.update(model_and_diffusion_defaults())
    flags.update(classifier_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
