"""One of two processes on a processor, in the place of two GPUs: what ultralytics does for CUDA alone is put right."""

import sys
from pathlib import Path

import torch
from torch import distributed

from training.engine import gpu_worker, training_run

whole_overrides, whole_init = training_run.overrides, training_run.CellTraining.__init__
whole_reduce, wrapper = distributed.reduce, torch.nn.parallel.DistributedDataParallel


def start_group(training):
    distributed.init_process_group("gloo")


def begin(training, *arguments, **options):
    whole_init(training, *arguments, **options)
    training.world_size = 2


def reduce(tensor, dst=0, op=distributed.ReduceOp.SUM):  # gloo knows no average
    return whole_reduce(tensor, dst=dst)


if __name__ == "__main__":
    training_run.overrides = lambda *arguments: whole_overrides(*arguments) | {"device": "cpu"}
    training_run.CellTraining.__init__ = begin
    training_run.CellTraining._setup_ddp = start_group
    distributed.reduce = reduce
    torch.nn.parallel.DistributedDataParallel = lambda model, device_ids, **options: wrapper(model, **options)
    torch.set_num_threads(1)
    gpu_worker.main(Path(sys.argv[1]))
