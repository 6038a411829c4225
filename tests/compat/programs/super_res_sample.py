"""In the manner of super_res_sample: small samples from an .npz, enlarged."""

import argparse

import blobfile as bf
import numpy as np
import torch as th
import torch.distributed as dist
from guided_diffusion import dist_util, logger
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    sr_create_model_and_diffusion,
    sr_model_and_diffusion_defaults,
)


def main():
    args = parser().parse_args()
    dist_util.setup_dist()
    logger.configure(dir=args.out)
    model, diffusion = sr_create_model_and_diffusion(**args_to_dict(args, sr_model_and_diffusion_defaults().keys()))
    model.load_state_dict(dist_util.load_state_dict(args.model_path, map_location="cpu"))
    model.to(dist_util.dev())
    model.eval()
    low_res = small_images(args).to(dist_util.dev())
    sample = diffusion.p_sample_loop(
        model,
        (args.num_samples, 3, args.large_size, args.large_size),
        clip_denoised=True,
        model_kwargs={"low_res": low_res},
    )
    pixels = ((sample + 1) * 127.5).clamp(0, 255).to(th.uint8).permute(0, 2, 3, 1).cpu().numpy()
    if dist.get_rank() == 0:
        np.savez(bf.join(logger.get_dir(), "samples.npz"), pixels)
    dist.barrier()


def small_images(args):
    with bf.BlobFile(args.base_samples, "rb") as f:
        pixels = np.load(f)["arr_0"]
    rows = pixels[dist.get_rank() :: dist.get_world_size()][: args.num_samples]
    return th.from_numpy(rows).float().permute(0, 3, 1, 2) / 127.5 - 1.0


def parser():
    flags = {"base_samples": "", "model_path": "", "num_samples": 1, "out": None}
    flags.update(sr_model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
