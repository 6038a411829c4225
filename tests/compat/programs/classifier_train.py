"""A program like guided-diffusion's classifier_train: a classifier of noisy images, with a loop of its own."""

import argparse
import os

import torch as th
import torch.distributed as dist
import torch.nn.functional as F
from guided_diffusion import dist_util, logger
from guided_diffusion.fp16_util import MixedPrecisionTrainer
from guided_diffusion.image_datasets import load_data
from guided_diffusion.resample import create_named_schedule_sampler
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    classifier_and_diffusion_defaults,
    create_classifier_and_diffusion,
)
from guided_diffusion.train_util import log_loss_dict, parse_resume_step_from_filename
from torch.nn.parallel.distributed import DistributedDataParallel as DDP
from torch.optim import AdamW


def main():
    args = parser().parse_args()
    dist_util.setup_dist()
    logger.configure(dir=args.out)
    model, diffusion = create_classifier_and_diffusion(**args_to_dict(args, classifier_and_diffusion_defaults().keys()))
    model.to(dist_util.dev())
    sampler = create_named_schedule_sampler("uniform", diffusion)
    resume_step = parse_resume_step_from_filename(args.resume_checkpoint)
    if args.resume_checkpoint:
        model.load_state_dict(dist_util.load_state_dict(args.resume_checkpoint, map_location=dist_util.dev()))
    dist_util.sync_params(model.parameters())
    mp_trainer = MixedPrecisionTrainer(model=model, use_fp16=args.classifier_use_fp16, initial_lg_loss_scale=16.0)
    model = DDP(
        model,
        device_ids=[dist_util.dev()],
        output_device=dist_util.dev(),
        broadcast_buffers=False,
        bucket_cap_mb=128,
        find_unused_parameters=False,
    )
    folders = {"train": args.data_dir, "val": args.val_data_dir}
    data = {
        name: load_data(
            data_dir=folder,
            batch_size=args.batch_size,
            image_size=args.image_size,
            class_cond=True,
            random_crop=name == "train",
        )
        for name, folder in folders.items()
    }
    opt = AdamW(mp_trainer.master_params, lr=args.lr)
    if args.resume_checkpoint:
        saved = os.path.join(os.path.dirname(args.resume_checkpoint), f"opt{resume_step:06}.pt")  # noqa: PTH118, PTH120
        opt.load_state_dict(dist_util.load_state_dict(saved, map_location=dist_util.dev()))

    def losses_of(name):
        batch, extra = next(data[name])
        labels = extra["y"].to(dist_util.dev())
        batch = batch.to(dist_util.dev())
        t, _ = sampler.sample(batch.shape[0], dist_util.dev())
        logits = model(diffusion.q_sample(batch, t), timesteps=t)
        loss = F.cross_entropy(logits, labels, reduction="none")
        hits = (logits.argmax(dim=-1) == labels).float()
        log_loss_dict(diffusion, t, {f"{name}_loss": loss.detach(), f"{name}_acc@1": hits})
        return loss.mean()

    for step in range(resume_step, args.iterations):
        logger.logkv("step", step)
        mp_trainer.zero_grad()
        mp_trainer.backward(losses_of("train"))
        mp_trainer.optimize(opt)
        with th.no_grad(), model.no_sync():
            model.eval()
            losses_of("val")
            model.train()
        logger.dumpkvs()
    if dist.get_rank() == 0:
        state = mp_trainer.master_params_to_state_dict(mp_trainer.master_params)
        th.save(state, os.path.join(logger.get_dir(), f"model{step:06d}.pt"))  # noqa: PTH118
        th.save(opt.state_dict(), os.path.join(logger.get_dir(), f"opt{step:06d}.pt"))  # noqa: PTH118
    dist.barrier()


def parser():
    flags = {
        "data_dir": "",
        "val_data_dir": "",
        "iterations": 10,
        "lr": 3e-4,
        "batch_size": 4,
        "log_interval": 1,
        "resume_checkpoint": "",
        "out": None,
    }
    flags.update(classifier_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
