"""What OpenVINO leaves in a process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import gc, signal, threading

import numpy as np

from inference.engine.openvino_runtime import Requests
from openvino import Model, opset13

inputs = opset13.parameter([1, 3, 8, 8], np.float32)
requests = [Requests(Model([opset13.relu(inputs)], [inputs]))]
tiles = [np.zeros((1, 3, 8, 8), np.float32)] * 3
assert sum(1 for _ in requests[0].answers(tiles, lambda tile: tile)) == 3

def forget():
    requests.clear()
    gc.collect()

thread = threading.Thread(target=forget)
thread.start()
thread.join()
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
signal.raise_signal(signal.SIGTERM)
print(heard)
"""


def test_signals_are_still_heard_when_a_detector_went_in_another_thread() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "['SIGTERM']\n"), done.stderr
