"""A program like guided-diffusion's image_sample: samples of a model, gathered from all processes, as an .npz."""

import argparse
import os

import numpy as np
import torch as th
import torch.distributed as dist
from guided_diffusion import dist_util, logger
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
    if args.use_fp16:
        model.convert_to_fp16()
    model.eval()

    logger.log("sampling...")
    batches = []
    while len(batches) * args.batch_size < args.num_samples:
        loop = diffusion.ddim_sample_loop if args.use_ddim else diffusion.p_sample_loop
        shape = (args.batch_size, 3, args.image_size, args.image_size)
        sample = loop(model, shape, clip_denoised=args.clip_denoised, model_kwargs={})
        sample = ((sample + 1) * 127.5).clamp(0, 255).to(th.uint8).permute(0, 2, 3, 1).contiguous()
        gathered = [th.zeros_like(sample) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, sample)
        batches.extend(part.cpu().numpy() for part in gathered)
        logger.log(f"created {len(batches) * args.batch_size} samples")
    arr = np.concatenate(batches)[: args.num_samples]
    if dist.get_rank() == 0:
        np.savez(os.path.join(logger.get_dir(), f"samples_{'x'.join(map(str, arr.shape))}.npz"), arr)  # noqa: PTH118
    dist.barrier()


def parser():
    flags = {
        "clip_denoised": True,
        "num_samples": 10,
        "batch_size": 16,
        "use_ddim": False,
        "model_path": "",
        "out": None,
    }
    flags.update(model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
