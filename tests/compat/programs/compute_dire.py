"""A program like DIRE's compute_dire: the error that inversion and reconstruction leave, as images."""

import argparse
import os

import torch as th
import torch.distributed as dist
from guided_diffusion import dist_util, logger
from guided_diffusion.image_datasets import load_data_for_reverse
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    create_model_and_diffusion,
    model_and_diffusion_defaults,
)
from mpi4py import MPI
from PIL import Image


def main():
    args = parser().parse_args()
    dist_util.setup_dist(os.environ["CUDA_VISIBLE_DEVICES"])
    logger.configure(dir=args.out)
    model, diffusion = create_model_and_diffusion(**args_to_dict(args, model_and_diffusion_defaults().keys()))
    model.load_state_dict(dist_util.load_state_dict(args.model_path, map_location="cpu"))
    model.to(dist_util.dev())
    model.eval()
    data = load_data_for_reverse(
        data_dir=args.images_dir, batch_size=args.batch_size, image_size=args.image_size, class_cond=args.class_cond
    )
    finished = 0
    while finished < args.num_samples:
        batch_size = min(args.batch_size, -(-(args.num_samples - finished) // MPI.COMM_WORLD.size))
        imgs, _, paths = next(data)
        imgs, paths = imgs[:batch_size].to(dist_util.dev()), paths[:batch_size]
        shape = (batch_size, 3, args.image_size, args.image_size)
        options = {"clip_denoised": True, "model_kwargs": {}, "real_step": args.real_step}
        latent = diffusion.ddim_reverse_sample_loop(model, shape, noise=imgs, **options)
        recons = diffusion.ddim_sample_loop(model, shape, noise=latent, **options)
        dire = (th.abs(imgs - recons) * 255.0 / 2.0).clamp(0, 255).to(th.uint8).permute(0, 2, 3, 1).contiguous()
        gathered = [th.zeros_like(dire) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, dire)
        finished += len(gathered) * batch_size
        for pixels, path in zip(dire.cpu().numpy(), paths, strict=True):
            Image.fromarray(pixels).save(os.path.join(args.out, os.path.basename(path)))  # noqa: PTH118, PTH119
        logger.log(f"have finished {finished} samples")
    dist.barrier()


def parser():
    flags = {"images_dir": "", "num_samples": -1, "batch_size": 16, "model_path": "", "real_step": 0, "out": None}
    flags.update(model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
