"""A program like guided-diffusion's super_res_sample: small samples from an .npz, enlarged."""

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
    small, batches = small_images(args), []
    while len(batches) < args.num_samples:
        low_res = next(small).to(dist_util.dev())
        shape = (1, 3, args.large_size, args.large_size)
        sample = diffusion.p_sample_loop(model, shape, clip_denoised=True, model_kwargs={"low_res": low_res})
        sample = ((sample + 1) * 127.5).clamp(0, 255).to(th.uint8).permute(0, 2, 3, 1).contiguous()
        gathered = [th.zeros_like(sample) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, sample)
        batches.extend(part.cpu().numpy() for part in gathered)
    if dist.get_rank() == 0:
        np.savez(bf.join(logger.get_dir(), "samples.npz"), np.concatenate(batches)[: args.num_samples])
    dist.barrier()


def small_images(args):
    with bf.BlobFile(args.base_samples, "rb") as f:
        pixels = np.load(f)["arr_0"]
    while True:
        for row in pixels[dist.get_rank() :: dist.get_world_size()]:
            yield th.from_numpy(row[None]).float().permute(0, 3, 1, 2) / 127.5 - 1.0


def parser():
    flags = {"base_samples": "", "model_path": "", "num_samples": 1, "out": None}
    flags.update(sr_model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
