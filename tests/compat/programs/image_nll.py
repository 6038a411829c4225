"""A program like guided-diffusion's image_nll: bits per dimension of images, averaged over all processes."""

import argparse
import os

import numpy as np
import torch.distributed as dist
from guided_diffusion import dist_util, logger
from guided_diffusion.image_datasets import load_data
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    create_model_and_diffusion,
    model_and_diffusion_defaults,
)


def main():
    args = parser().parse_args()
    dist_util.setup_dist()
    logger.configure(dir=args.out)
    model, diffusion = create_model_and_diffusion(**args_to_dict(args, model_and_diffusion_defaults().keys()))
    model.load_state_dict(dist_util.load_state_dict(args.model_path, map_location="cpu"))
    model.to(dist_util.dev())
    model.eval()
    data = load_data(data_dir=args.data_dir, batch_size=args.batch_size, image_size=args.image_size, deterministic=True)
    metrics = {"vb": [], "mse": [], "xstart_mse": []}
    complete = 0
    while complete < args.num_samples:
        batch, cond = next(data)
        cond = {name: value.to(dist_util.dev()) for name, value in cond.items()}
        terms = diffusion.calc_bpd_loop(model, batch.to(dist_util.dev()), clip_denoised=True, model_kwargs=cond)
        for name, values in metrics.items():
            mean = terms[name].mean(dim=0) / dist.get_world_size()
            dist.all_reduce(mean)
            values.append(mean.detach().cpu().numpy())
        complete += dist.get_world_size() * batch.shape[0]
        logger.log(f"done {complete} samples: bpd={terms['total_bpd'].mean().item()}")
    if dist.get_rank() == 0:
        for name, values in metrics.items():
            path = os.path.join(logger.get_dir(), f"{name}_terms.npz")  # noqa: PTH118
            np.savez(path, np.mean(np.stack(values), axis=0))
    dist.barrier()


def parser():
    flags = {"data_dir": "", "num_samples": 1000, "batch_size": 1, "model_path": "", "out": None}
    flags.update(model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
