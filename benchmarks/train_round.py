"""How long a round's training takes beside ultralytics' own, and how good both are: the same snapshot of real smears.

python -m benchmarks.train_round [--json] [--tiles N] [--epochs N] [--image-size PX] [--seeds N] [--smears FOLDER]
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.smears import add_smears, show, slides_in, start_django


def main() -> None:
    options = _options()
    slides = slides_in(options.smears)
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as folder:
        start_django(Path(folder))
        from benchmarks import round_training

        numbers = round_training.measure(
            Path(folder),
            slides,
            tiles=options.tiles,
            epochs=options.epochs,
            image_size=options.image_size,
            seeds=options.seeds,
        )
    show(asdict(numbers), as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--tiles", type=int, default=300, help="tiles in the snapshot")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--image-size", type=int, default=320, help="px")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    add_smears(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
