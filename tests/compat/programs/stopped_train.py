"""A program that extends the training loop, and receives a signal to stop after a given step."""

import argparse
import os
import signal

from guided_diffusion import dist_util, logger
from guided_diffusion.image_datasets import load_data
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    create_model_and_diffusion,
    model_and_diffusion_defaults,
)
from guided_diffusion.train_util import TrainLoop


class StoppedLoop(TrainLoop):
    stop_at = -1

    def log_step(self):
        super().log_step()
        if self.step + self.resume_step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def main():
    args = parser().parse_args()
    dist_util.setup_dist()
    logger.configure(dir=args.out)
    model, diffusion = create_model_and_diffusion(**args_to_dict(args, model_and_diffusion_defaults().keys()))
    model.to(dist_util.dev())
    loop = StoppedLoop(
        model=model,
        diffusion=diffusion,
        data=load_data(data_dir=args.data_dir, batch_size=args.batch_size, image_size=args.image_size),
        batch_size=args.batch_size,
        microbatch=-1,
        lr=1e-4,
        ema_rate=0.9,
        log_interval=args.log_interval,
        save_interval=10000,
        resume_checkpoint="",
        lr_anneal_steps=args.lr_anneal_steps,
    )
    loop.stop_at = args.stop_at
    loop.run_loop()


def parser():
    flags = {"data_dir": "", "batch_size": 1, "log_interval": 10, "lr_anneal_steps": 0, "stop_at": -1, "out": None}
    flags.update(model_and_diffusion_defaults())
    result = argparse.ArgumentParser()
    add_dict_to_argparser(result, flags)
    return result


if __name__ == "__main__":
    main()
