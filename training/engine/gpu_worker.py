"""One of the processes of a training on several GPUs: see training.engine.several_gpus, which starts it.

python -m torch.distributed.run --nproc_per_node=N -m training.engine.gpu_worker JOB.json
"""

# mypy: disable-error-code="no-untyped-call"

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed

from training.engine.config import TrainingConfig
from training.engine.progress import Progress
from training.engine.several_gpus import TOLD_NAME, is_gone
from training.engine.state_files import STATE_NAME, load_state
from training.engine.training_run import CellTraining


def main(job_file: Path) -> None:
    job = json.loads(job_file.read_text(encoding="utf-8"))
    folder, identity, told = Path(job["folder"]), job["identity"], Path(job["folder"]) / TOLD_NAME
    starter: tuple[int, float] = (job["starter"][0], job["starter"][1])

    def report(progress: Progress) -> None:
        _tell(told, asdict(progress))

    try:
        training = CellTraining(
            Path(job["data"]),
            config_in(job),
            folder,
            identity,
            load_state(folder / STATE_NAME, identity),
            report,
            should_stop=lambda: is_gone(starter),
        )
        training.train()
    except Exception as error:
        _tell(told, {"error": str(error), "kind": type(error).__name__, "number": getattr(error, "errno", None)})
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def config_in(job: dict[str, Any]) -> TrainingConfig:
    """The configuration that the job's file holds."""
    values = dict(job["config"])
    start = values.pop("start_weights")
    return TrainingConfig(**values, start_weights=Path(start) if start else None)


def _tell(told: Path, content: dict[str, Any]) -> None:
    """One line, in one write: several processes may have something to say."""
    handle = os.open(told, os.O_WRONLY | os.O_APPEND)
    os.write(handle, json.dumps(content).encode() + b"\n")
    os.close(handle)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
