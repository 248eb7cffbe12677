"""What an expert waits for in the editor, and whether a box is ever lost: a real Chromium on a site as it is deployed.

python -m benchmarks.editor [--json] [--tiles N] [--database sqlite|postgresql] [--smears FOLDER]
"""

import argparse
import json
import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, quantiles

import openslide
from playwright.sync_api import Playwright, sync_playwright

from benchmarks import frames
from tests.browser import faults
from tests.browser.chromium import launch
from tests.browser.editing import Editing, Editor
from tests.browser.site import ROOT, Site

SMEARS = ROOT / "../shared/data/smears"
SLIDES = 4  # some 150 tiles whose every cell is known
CLASSES = 10
TILE, LARGE = 512, 4096  # px
LOOK_MILLISECONDS = 1000  # nobody reads a tile faster
COLD_VISITS = 5
UNLIMITED = ("--disable-frame-rate-limit", "--disable-gpu-vsync")
FAULTS: list[Callable[[Editing], faults.Wanted]] = [
    faults.offline_and_back,
    faults.lost_answer,
    faults.two_readers_keep_mine,
    faults.kill_in_mid_save,  # the last, because a site just started is slower
]

# When each press of Space happened, by the event's own clock, which is the clock of the page's measurements.
NOTE_SPACES = """window.spaces = [];
addEventListener("keydown", (event) => event.key === " " && !event.repeat && spaces.push(event.timeStamp), true);"""
NOTE_READY = """new MutationObserver(() => {
    if (document.documentElement?.dataset.ready === "true") window.readyAt ??= performance.now();
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-ready"] });"""
DRAWN = """() => performance.getEntriesByName("confirm-to-next-tile").map((one, place) =>
    one.startTime + one.duration - spaces[place])"""


@dataclass
class Numbers:
    """What is printed; times in ms."""

    database: str
    tiles: int
    boxes_per_tile: float
    submit_to_drawn_ms_p50: float
    submit_to_drawn_ms_p95: float
    submit_to_drawn_ms_p50_without_looking: float
    submit_to_drawn_ms_p95_without_looking: float
    keys_per_accepted_tile: float
    frame_ms_p95_500_boxes: float
    frame_ms_p95_500_boxes_panning: float
    frame_ms_p95_500_boxes_zooming: float
    frame_ms_p95_4096_px: float
    frame_ms_p95_4096_px_panning: float
    frame_ms_p95_4096_px_zooming: float
    js_bytes: int
    cold_page_ms: float
    boxes_expected: int
    boxes_lost: int


def main() -> None:
    options = _options()
    slides = sorted(path for path in options.smears.glob("*.*") if path.suffix in (".svs", ".tif"))[:SLIDES]
    truths = [path.with_suffix(".json") for path in slides]
    missing = [path for path in truths if not path.is_file()]
    if not slides or missing:
        sys.exit(
            f"{options.smears}: no smears with their truth beside them ({', '.join(map(str, missing)) or 'empty'})"
        )
    _choose_database(options.database)
    with tempfile.TemporaryDirectory(prefix="marrowloop-benchmark-") as folder, serving(Path(folder)) as site:
        large = _cut_large_image(slides[0], Path(folder) / "large.png")
        with sync_playwright() as playwright:
            numbers = measure(site, playwright, slides, truths, large, options)
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(numbers).items()}
    for name, value in rounded.items():
        print(f"{name:42} {value:>10}")
    if options.json:
        print(json.dumps(rounded))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--tiles", type=int, default=60, help="tiles to confirm, twice")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--smears", type=Path, default=SMEARS, help="slides with their truth beside them")
    return parser.parse_args()


def _choose_database(database: str) -> None:
    """PostgreSQL is the server of DATABASE_URL; the site makes a database of its own there."""
    address = os.environ.get("DATABASE_URL", "")
    if database == "sqlite":
        os.environ.pop("DATABASE_URL", None)
    elif not address.startswith("postgres"):
        sys.exit("--database postgresql: give the server as DATABASE_URL=postgres://user@host:port/postgres")


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """A site with production settings, and its users lead and reader."""
    site = Site(folder)
    try:
        _say("starting the site")
        site.start()
        for name in ("lead", "reader"):
            site.make_user(name, staff=name == "lead")
        yield site
    finally:
        site.stop()


def _cut_large_image(slide: Path, to: Path) -> Path:
    """A plain image of 4096 x 4096 px from the middle of a smear."""
    with openslide.OpenSlide(slide) as reader:
        left, top = ((size - LARGE) // 2 for size in reader.dimensions)
        reader.read_region((left, top), 0, (LARGE, LARGE)).convert("RGB").save(to)
    return to


def measure(
    site: Site,
    playwright: Playwright,
    slides: Sequence[Path],
    truths: Sequence[Path],
    large: Path,
    options: argparse.Namespace,
) -> Numbers:
    browser = launch(playwright)
    editing = Editing(site, browser, slides, taxonomy="blood-and-marrow", tiling="edge")
    tiles = options.tiles
    _say(f"confirming {tiles} tiles, twice")
    looking, keys, boxes = confirm_all(editing, editing.truth_batch(truths, tiles + 1), look=LOOK_MILLISECONDS)
    hurried, _, _ = confirm_all(editing, editing.truth_batch(truths, tiles + 1, skip=tiles + 1), look=0)
    _say("opening the page with nothing in the browser's cache")
    cold = cold_page(editing)
    _say("frames with 500 boxes")
    site.manage("import_slides", str(large), "--project", editing.project, "--mpp", "0.25")
    small_frames, large_frames = _frames(editing, playwright, large.name)
    _say("faults")
    expected, lost = boxes_lost(editing)
    browser.close()
    return Numbers(
        database=options.database,
        tiles=tiles,
        boxes_per_tile=mean(boxes),
        submit_to_drawn_ms_p50=median(looking),
        submit_to_drawn_ms_p95=p95(looking),
        submit_to_drawn_ms_p50_without_looking=median(hurried),
        submit_to_drawn_ms_p95_without_looking=p95(hurried),
        keys_per_accepted_tile=mean(keys),
        frame_ms_p95_500_boxes=p95(small_frames.drag),
        frame_ms_p95_500_boxes_panning=p95(small_frames.pan),
        frame_ms_p95_500_boxes_zooming=p95(small_frames.zoom),
        frame_ms_p95_4096_px=p95(large_frames.drag),
        frame_ms_p95_4096_px_panning=p95(large_frames.pan),
        frame_ms_p95_4096_px_zooming=p95(large_frames.zoom),
        js_bytes=js_bytes(site),
        cold_page_ms=median(cold),
        boxes_expected=expected,
        boxes_lost=lost,
    )


def p95(times: Sequence[float]) -> float:
    return quantiles(times, n=20, method="inclusive")[-1]


def confirm_all(editing: Editing, batch: int, *, look: int) -> tuple[list[float], list[int], list[int]]:
    """Accept every tile but the last by Space, `look` ms after it was drawn.

    Returns, for each, ms from the press to the next tile on screen, keys, and boxes.
    """
    editor = editing.page(editing.context())
    editor.page.add_init_script(NOTE_SPACES)
    editor.go(batch)
    tasks = editing.tasks(batch)
    task = editor.wait()
    for _ in tasks[:-1]:
        editor.page.wait_for_timeout(look)
        editor.press("Space")
        task = editor.wait(after=task)
    editor.saved()
    times: list[float] = editor.page.evaluate(DRAWN)
    stored = list(editing.stored(batch).values())[:-1]
    accepted = [told.annotations[0] for told in stored if told.annotations]
    if not len(times) == len(accepted) == len(tasks) - 1:
        raise RuntimeError(f"{len(tasks) - 1} tiles confirmed, {len(times)} measured, {len(accepted)} stored")
    editing.close()
    return times, [one.keys for one in accepted], [len(one.boxes) for one in accepted]


def cold_page(editing: Editing) -> list[float]:
    """ms from the request of the editor's page to its first tile drawn, each time in a browser without a cache."""
    batch = editing.batch(faults.CELLS)
    times = []
    for _ in range(COLD_VISITS):
        editor = editing.page(editing.context())
        editor.page.add_init_script(NOTE_READY)
        editor.go(batch)
        times.append(float(editor.page.evaluate("() => readyAt")))
        editing.close()
    return times


def _frames(editing: Editing, playwright: Playwright, large: str) -> tuple[frames.Frames, frames.Frames]:
    """With 500 boxes on an ordinary tile, and on the large image."""
    browser = launch(playwright, *UNLIMITED)
    usual, editing.browser = editing.browser, browser
    found = []
    for side, slide in ((TILE, ""), (LARGE, large)):
        boxes = frames.many_boxes(side, CLASSES)
        editor = editing.open(editing.batch(boxes, slide=slide))
        _check_tile(editor, side)
        found.append(frames.measure(editor, boxes[262].box))
        editing.close()
    editing.browser = usual
    browser.close()
    return found[0], found[1]


def _check_tile(editor: Editor, side: int) -> None:
    tile = editor.page.evaluate("() => JSON.parse(document.getElementById('editor-data').textContent).task.tile")
    if (tile["width"], tile["height"]) != (side, side):
        raise RuntimeError(f"the tile is {tile['width']} x {tile['height']} px, not {side} x {side}")


def js_bytes(site: Site) -> int:
    """Of the editor's modules as they are served, uncompressed, and of htmx, whether it is loaded or not."""
    modules: list[str] = site.read(
        """
from django.contrib.staticfiles.storage import staticfiles_storage
names = staticfiles_storage.hashed_files
answer = [staticfiles_storage.url(name) for name in names if name.startswith("js/editor/")]
"""
    )
    htmx = re.findall(r'src="([^"]*/htmx[^"]*\.js)"', _fetch(f"{site.url}/sign-in/").decode())
    if not modules or len(htmx) != 1:
        raise RuntimeError(f"{len(modules)} modules of the editor, and {len(htmx)} of htmx")
    return sum(len(_fetch(site.url + path)) for path in [*modules, *htmx])


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def boxes_lost(editing: Editing) -> tuple[int, int]:
    """How many boxes had to be stored over all faults, and how many were not."""
    expected = lost = 0
    for play in FAULTS:
        wanted = play(editing)
        missing = wanted.lost(editing)
        expected += wanted.count
        lost += len(missing)
        editing.close()
        _say(f"  {play.__name__}: {len(missing)} of {wanted.count} boxes lost")
    return expected, lost


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
