"""How fast pre-labels come from a slide's file into the database, and how good they are: real services, real smears.

python -m benchmarks.prelabel [--json] [--tiles N] [--image-size PX] [--weights FILE] [--smears FOLDER]
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parents[1]
SMEARS = ROOT / "../shared/data/smears"


def main() -> None:
    options = _options()
    slides = sorted(path for path in options.smears.glob("*.*") if path.suffix in (".svs", ".tif"))
    missing = [path.with_suffix(".json") for path in slides if not path.with_suffix(".json").is_file()]
    if not slides or missing:
        sys.exit(
            f"{options.smears}: no smears with their truth beside them ({', '.join(map(str, missing)) or 'empty'})"
        )
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as folder:
        _start_django(Path(folder))
        from benchmarks import pre_labelling

        numbers = pre_labelling.measure(
            Path(folder), slides, weights=options.weights, image_size=options.image_size, tiles=options.tiles
        )
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(numbers).items()}
    for name, value in rounded.items():
        print(f"{name:28} {value:>10}" if not isinstance(value, str) else f"{name:28} {value}")
    if options.json:
        print(json.dumps(rounded))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--tiles", type=int, default=250, help="tiles to pre-label")
    parser.add_argument("--image-size", type=int, default=512, help="px; the tiles' own size by default")
    parser.add_argument("--weights", type=Path, help="a detector of the ten classes, instead of a short training")
    parser.add_argument("--smears", type=Path, default=SMEARS, help="slides with their truth beside them")
    return parser.parse_args()


def _start_django(folder: Path) -> None:
    """An empty database and storage in a folder of their own, with production settings."""
    for name in [name for name in os.environ if name.startswith(("MARROWLOOP_", "DATABASE_URL", "CELERY_BROKER_URL"))]:
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "MARROWLOOP_DATA": str(folder / "data"),
        "MARROWLOOP_SECRET_KEY": secrets.token_urlsafe(50),
        "OMP_WAIT_POLICY": "PASSIVE",  # as in the worker
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=ROOT, check=True)
    django.setup()


if __name__ == "__main__":
    main()
