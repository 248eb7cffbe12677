"""How long exports and imports take, how much memory they need, and how exact they are.

python -m benchmarks.formats [--json] [--sets small large] [--formats NAME ...] [--without-supervision]

Two sets of the sizes of the paper's, before and after its augmentation, made by chance in an SQLite database of their
own. Each export, as the job writes it, is imported into a project that has the same tiles and no truth: files read,
dry run, all of it written, by the same three jobs as on the page; an import's time is that of the three together.
Where supervision has the format, it writes the same boxes in the same run: from arrays that are in memory, to single
files, without images (all of its images are one array). Every export and import is a process of its own, so that its
memory is its own; `mib` is the most that the process held.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.smears import ROOT, say, start_django

SETS = {"small": (2_000, 26_782), "large": (132_000, 1_178_408)}  # tiles, boxes
FORMATS = ("yolo", "voc", "labelimg-voc", "labelimg-yolo", "coco", "csv")  # crops are images, and none are made here
SUPERVISION = ("yolo", "voc", "coco")
DIRECTIONS = ("export", "import")


def main() -> None:
    options = _options()
    load = os.getloadavg()[0]
    runs = {name: measure(name, options.formats, theirs=not options.without_supervision) for name in options.sets}
    numbers: dict[str, Any] = {}
    for name, rows in runs.items():
        print(f"\n{name}: {SETS[name][1]} boxes on {SETS[name][0]} tiles")
        _print_table(rows)
        for key in ("s", "mib"):
            numbers[f"worst_{name}_{key}"] = max(row[way][key] for row in rows.values() for way in DIRECTIONS)
    errors = [row["px_error"] for rows in runs.values() for row in rows.values()]
    numbers |= {"max_abs_px_error": max(errors), "load_average": round(load, 2)}
    if options.json:
        print(json.dumps(numbers | runs))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--without-supervision", action="store_true", help="only ours")
    return parser.parse_args()


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    print(f"  {'':14}{'':12}{'s':>8}{'cpu s':>8}{'MiB':>6}")
    for name, row in rows.items():
        for way in (*DIRECTIONS, "supervision"):
            if way in row:
                one = row[way]
                steps = "  ".join(f"{step} {one[step]['s']}" for step in ("read", "try", "write") if step in one)
                ratio = f"ours takes {row['ours_to_theirs']} of it" if way == "supervision" else steps
                print(f"  {name:14}{way:12}{one['s']:8}{one['cpu_s']:8}{one['mib']:6}  {ratio}")
        print(f"  {'':14}off by at most {row['px_error']:.6f} px")


def measure(name: str, formats: list[str], *, theirs: bool) -> dict[str, dict[str, Any]]:
    """What each format takes."""
    tiles, boxes = SETS[name]
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as temporary:
        folder = Path(temporary)
        full, bare = _Site(folder / "full"), _Site(folder / "bare")
        say(f"{name}: making {boxes} boxes on {tiles} tiles")
        full.call(f"make_set(tiles={tiles}, boxes={boxes})")
        bare.call(f"make_set(tiles={tiles}, boxes=0)")
        bare.keep()
        rows = {}
        for format_name in formats:
            file = folder / f"{format_name}.zip"
            exported = full.call(f"export(format_name={format_name!r}, file=Path({str(file)!r}))")
            bare.restore()
            imported = bare.call(f"import_back(file=Path({str(file)!r}))")
            error = bare.call(f"worst_px_error(other=Path({str(full.database)!r}))")
            file.unlink()
            if any((one.pop("tiles"), one.pop("boxes")) != (tiles, boxes) for one in (exported, imported)):
                raise RuntimeError(f"{format_name}: not all went out and in")
            row = {"export": _rounded(exported), "import": _rounded(imported), "px_error": error}
            if theirs and format_name in SUPERVISION:
                out = folder / "supervision"
                other = full.call(f"supervision_writes(format_name={format_name!r}, folder=Path({str(out)!r}))")
                row |= {"supervision": _rounded(other), "ours_to_theirs": round(exported["s"] / other["s"], 2)}
                shutil.rmtree(out)
            say(f"  {format_name}: {row}")
            rows[format_name] = row
        return rows


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _rounded(value) if isinstance(value, dict) else round(value, None if key in ("mib", "bytes") else 2)
        for key, value in row.items()
    }


class _Site:
    """An application with a database of its own; calls of benchmarks/format_set.py, each in a new process."""

    def __init__(self, folder: Path) -> None:
        before = dict(os.environ)
        folder.mkdir()
        start_django(folder)
        self._environment = dict(os.environ)
        os.environ.clear()
        os.environ.update(before)
        self._data = folder / "data"
        self._kept = folder / "kept"
        self.database = self._data / "marrowloop.sqlite3"

    def keep(self) -> None:
        shutil.copytree(self._data, self._kept)

    def restore(self) -> None:
        """Everything is as when it was kept."""
        shutil.rmtree(self._data)
        shutil.copytree(self._kept, self._data)

    def call(self, call: str) -> Any:
        program = (
            "import json\nfrom pathlib import Path\nimport django\ndjango.setup()\n"
            f"from benchmarks import format_set\nprint(json.dumps(format_set.{call}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=self._environment, check=True, stdout=subprocess.PIPE
        )
        return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
