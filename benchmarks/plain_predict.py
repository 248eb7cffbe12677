"""`YOLO.predict` as ultralytics ships it, on tiles as arrays: a process of its own, so that no setting of ours helps it
or hinders it. Prints tiles per second for each batch size.

python -m benchmarks.plain_predict WEIGHTS TILES.npy IMAGE_SIZE
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

BATCHES = (1, 8, 16, 32)


def main() -> None:
    weights, tiles, image_size = Path(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3])
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(Path(sys.argv[2]).parent)}
    from ultralytics.models import YOLO
    from ultralytics.utils.events import events

    events.enabled = False  # no usage statistics
    model = YOLO(weights)
    speeds = {}
    for batch in BATCHES:
        some = [list(tiles[start : start + batch]) for start in range(0, len(tiles), batch)]
        model.predict(some[0], imgsz=image_size, verbose=False)
        start = time.perf_counter()
        for images in some:
            model.predict(images, imgsz=image_size, verbose=False)
        speeds[batch] = len(tiles) / (time.perf_counter() - start)
    print(json.dumps(speeds))


if __name__ == "__main__":
    main()
