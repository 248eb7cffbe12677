"""`YOLO.train` as ultralytics ships it: a process of its own, so that no setting of ours helps it or hinders it.

Prints the seconds of the training and the path of its best weights.

python -m benchmarks.plain_train MODEL SETTINGS.json
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    model, settings = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(Path(sys.argv[2]).parent)}
    from ultralytics.models import YOLO
    from ultralytics.utils.events import events

    events.enabled = False  # no usage statistics
    network: Any = YOLO(f"{model}.yaml")
    start = time.perf_counter()
    network.train(**settings)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "weights": str(network.trainer.best)}))


if __name__ == "__main__":
    main()
