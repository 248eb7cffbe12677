"""How fast pre-labels come from a slide's file into the database, and how good they are: real services, real smears.

python -m benchmarks.prelabel [--json] [--tiles N] [--image-size PX] [--weights FILE] [--smears FOLDER]
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
        from benchmarks import pre_labelling

        numbers = pre_labelling.measure(
            Path(folder), slides, weights=options.weights, image_size=options.image_size, tiles=options.tiles
        )
    show(asdict(numbers), as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--tiles", type=int, default=250, help="tiles to pre-label")
    parser.add_argument("--image-size", type=int, default=512, help="px; the tiles' own size by default")
    parser.add_argument("--weights", type=Path, help="a detector of the ten classes, instead of a short training")
    add_smears(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
