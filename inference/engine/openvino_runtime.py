"""What the OpenVINO back ends share: a quiet import, models on disk with their facts, many inputs under way at once."""

import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference.engine.detector import MODEL_FILES, WeightsError

# OpenVINO sends statistics when it is imported, unless the package that does so is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

SPARE = 2  # inputs prepared while others are computed
FACTS = ["marrowloop", "facts"]  # where the model's file says what its back end has to know of it

T = TypeVar("T")


@cache
def _core() -> Any:
    """The one core of this process, which lives as long as it does.

    A core's processor plug-in gives the thread that loads it another stack for its signals, and takes the memory back
    when it goes, in whichever thread that happens: the next signal with a handler (Ctrl-C, SIGTERM) then ends the
    process without a word (seen with OpenVINO 2026.4).
    """
    return openvino.Core()


class Requests:
    """A compiled model that computes one input per core at a time, in bfloat16 where the processor multiplies that.

    Every input is computed by one thread, so that no thread waits for another one: on a core that another process
    holds, an input only takes longer. exact: in float32 everywhere.
    """

    def __init__(self, model: Any, *, exact: bool = False) -> None:
        core = _core()
        fast = not exact and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",  # as many inputs at once as pay
                "INFERENCE_NUM_THREADS": os.cpu_count() or 1,
                "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
                "ENABLE_CPU_PINNING": False,  # a thread may leave a core that another process holds
            },
        )
        wanted = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + SPARE
        self._requests = [compiled.create_infer_request() for _ in range(wanted)]

    def answers(self, items: Iterable[T], prepare: Callable[[T], NDArray[Any]]) -> Iterator[Any]:
        """The request that has computed `prepare` of each item, in turn; its outputs are valid until the next one.

        Further items are under way meanwhile. A queue with a call-back would do the same, but a mistake in an OpenVINO
        call-back ends the whole process.
        """
        running: deque[Any] = deque()
        try:
            for index, item in enumerate(items):
                request = self._requests[index % len(self._requests)]
                if len(running) == len(self._requests):
                    yield _done(running.popleft())  # this very request
                request.start_async([prepare(item)])
                running.append(request)
            while running:
                yield _done(running.popleft())
        finally:
            for request in running:  # somebody stopped half-way
                request.wait()


def _done(request: Any) -> Any:
    request.wait()
    return request


def output_of(request: Any, place: int) -> NDArray[np.float32]:
    """An output of the one input that a request has computed."""
    return np.asarray(request.get_output_tensor(place).data[0], np.float32)


def converted(program: Any, shape: Sequence[int], facts: dict[str, Any]) -> Any:
    """A program that torch exported, as a model of this input shape that carries its facts."""
    model = openvino.convert_model(program)
    model.reshape(list(shape))
    model.set_rt_info(json.dumps(facts), FACTS)
    return model


def write_model(model: Any, folder: Path) -> Path:
    """Write folder / "model.xml" and "model.bin", and return the path of the first.

    A folder that is there already is replaced; it appears only once it is whole.
    """
    growing = folder.with_name(folder.name + ".writing")
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    openvino.save_model(model, growing / MODEL_FILES[0], compress_to_fp16=False)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(growing, folder)
    return folder / MODEL_FILES[0]


def read_model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model in a folder, and its facts. Raises WeightsError."""
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"The export {folder.name} has no {missing[0]}.")
    try:
        model = _core().read_model(folder / MODEL_FILES[0])
        facts = json.loads(model.get_rt_info(FACTS).astype(str))
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are files
        raise WeightsError(f"The export {folder.name} is damaged, or was not made by this program.") from error
    return model, facts
