"""How many rare cells each way to choose a batch brings, against chance and against the truth: real smears.

python -m benchmarks.selection [--json] [--minutes M] [--tiles N] [--batch N] [--seeds N] [--image-size PX]
    [--smears FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.smears import add_smears, show, slides_in, start_django


def main() -> None:
    options = _options()
    slides = slides_in(options.smears)
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as folder:
        start_django(Path(folder))
        from benchmarks import batch_yield

        numbers = batch_yield.measure(
            Path(folder),
            slides,
            seconds=60 * options.minutes,
            tiles=options.tiles,
            batch=options.batch,
            seeds=options.seeds,
            image_size=options.image_size,
        )
    show(numbers, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--minutes", type=float, default=10, help="of the detector's training")
    parser.add_argument("--tiles", type=int, default=60, help="to train on")
    parser.add_argument("--batch", type=int, default=40, help="tiles in a batch")
    parser.add_argument("--seeds", type=int, default=5, help="batches of each strategy")
    parser.add_argument("--image-size", type=int, default=320, help="px, of the tiles that the finder sees")
    add_smears(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
