"""How good each kind of detector is after the same time of training, on few tiles and on many: real smears.

python -m benchmarks.accuracy [--json] [--minutes M] [--tiles N] [--image-size PX] [--kinds KIND ...]
    [--tables FOLDER] [--smears FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.smears import add_smears, show, slides_in, start_django

KINDS = ("one_stage", "two_stage")


def main() -> None:
    options = _options()
    slides = slides_in(options.smears)
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as folder:
        start_django(Path(folder))
        from benchmarks import timed_training

        numbers = timed_training.measure(
            Path(folder),
            slides,
            kinds=options.kinds,
            seconds=60 * options.minutes,
            few=options.tiles,
            image_size=options.image_size,
            tables=options.tables,
        )
    show(numbers, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--minutes", type=float, default=10, help="of each training")
    parser.add_argument("--tiles", type=int, default=60, help="the few; 0 trains on all only")
    parser.add_argument("--image-size", type=int, default=320, help="px, of the tiles that the YOLO sees")
    parser.add_argument("--tables", type=Path, help="folder for Table 2 of each training as CSV")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    add_smears(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
