"""A program like guided-diffusion's super_res_train: large images and their own small ones from one folder."""

import argparse

import torch.nn.functional as F
from guided_diffusion import dist_util, logger
from guided_diffusion.image_datasets import load_data
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    sr_create_model_and_diffusion,
    sr_model_and_diffusion_defaults,
)
from guided_diffusion.train_util import TrainLoop


def main():
    args = parser().parse_args()
    dist_util.setup_dist()
    logger.configure(dir=args.out)
    model, diffusion = sr_create_model_and_diffusion(**args_to_dict(args, sr_model_and_diffusion_defaults().keys()))
    model.to(dist_util.dev())
    TrainLoop(
        model=model,
        diffusion=diffusion,
        data=pairs(args),
        batch_size=args.batch_size,
        microbatch=-1,
        lr=args.lr,
        ema_rate=0.9999,
        log_interval=args.log_interval,
        save_interval=10000,
        resume_checkpoint="",
        lr_anneal_steps=args.lr_anneal_steps,
    ).run_loop()


def pairs(args):
    data = load_data(data_dir=args.data_dir, batch_size=args.batch_size, image_size=args.large_size)
    for large_batch, model_kwargs in data:
        model_kwargs["low_res"] = F.interpolate(large_batch, args.small_size, mode="area")
        yield large_batch, model_kwargs


def parser():
    flags = {"data_dir": "", "lr": 1e-4, "lr_anneal_steps": 0, "batch_size": 1, "log_interval": 10, "out": None}
    flags.update(sr_model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
