"""Simulations: real rounds with simulated readers, in processes and data folders of their own."""

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from django.core.management import CommandError, call_command

from annotation.services.storage import local_path
from annotation.slides.smear import draw_smear
from tests.factories import make_patient, make_project, make_slide, make_truth
from training.management.commands.simulate_rounds import _stop_asked
from training.services.simulating import _of_project, project_source, slides_source
from training.simulation.results import Point
from training.simulation.settings import Settings
from training.simulation.tree import (
    ROOT,
    SimulationError,
    Source,
    Stopped,
    _environment,
    read_curves,
    simulate,
    write_json,
)

PATIENTS = ("S01", "S02", "S03", "S04")
OPTIONS = {"arms": ["a", "c"], "seeds": 1, "rounds": 2, "batch": 4, "kind": "one-stage", "image_size": 64}
BUDGET = {"finder_passes": 8, "classifier_passes": 8}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smears")
    for number, patient in enumerate(PATIENTS):
        draw_smear(folder, patient=patient, seed=number, width=1536, height=1536)
    return folder


def run(slides: Path, folder: Path, **changes: object) -> str:
    output = StringIO()
    options = {"slides": slides, "test": ["S04"], "taxonomy": "hct", "folder": folder} | OPTIONS | BUDGET | changes
    call_command("simulate_rounds", stdout=output, **options)
    return output.getvalue()


@pytest.fixture(scope="module")
def simulated(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("simulation")
    return folder, run(slides, folder)


def wait_for(look: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def settings_of(folder: Path) -> Settings:
    return Settings.of_json(json.loads((folder / "settings.json").read_text(encoding="utf-8")))


class TestARun:
    def test_arms_share_their_first_round(self, simulated: tuple[Path, str]) -> None:
        folder, _ = simulated
        rounds = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("seed-0/**/round.json"))
        first = "seed-0/manual-random"
        assert rounds == [first, f"{first}/assisted-rare", f"{first}/manual-random"]

    def test_points_are_of_real_rounds(self, simulated: tuple[Path, str]) -> None:
        folder, _ = simulated
        curves = read_curves(settings_of(folder), folder)
        known = json.loads((folder / "source" / "known.json").read_text(encoding="utf-8"))
        for name, assisted in (("a", False), ("c", True)):
            first, second = curves[name][0]
            assert (first.tiles, second.tiles) == (4, 8)
            assert (first.assisted, second.assisted) == (False, assisted)
            assert second.work.points - first.work.points == second.batch_work.points
            assert 0 <= first.map50 <= 1
            assert set(first.aps) <= set(known["names"])
        # Nobody misses more than a few cells, so the first batch is drawn box by box.
        first = curves["a"][0][0]
        assert first.batch_work.points == 2 * first.batch_boxes == first.batch_work.buttons
        assert first.batch_work.recognised == first.batch_boxes > 0

    def test_test_patients_are_never_read(self, simulated: tuple[Path, str]) -> None:
        folder, _ = simulated
        known = json.loads((folder / "source" / "known.json").read_text(encoding="utf-8"))
        assert known["test_patients"] == ["S04"]
        assert known["test_tiles"] > 0
        assert len(known["known"]) == known["pool_tiles"]

    def test_the_report_is_whole(self, simulated: tuple[Path, str]) -> None:
        folder, output = simulated
        report = folder / "report"
        manifest = json.loads((report / "manifest.json").read_text(encoding="utf-8"))
        assert sorted(manifest["files"]) == sorted(
            path.name for path in report.iterdir() if path.name != "manifest.json"
        )
        for name, digest in manifest["files"].items():
            assert hashlib.sha256((report / name).read_bytes()).hexdigest() == digest
        assert set(manifest["slides"]) == {f"{patient}.tif" for patient in PATIENTS}
        result = json.loads((report / "result.json").read_text(encoding="utf-8"))
        assert result == json.loads(output.splitlines()[-1])
        assert "hours_share_assisted_rare" in result
        rows = list(csv.DictReader((report / "points.csv").open(encoding="utf-8", newline="")))
        assert [(row["arm"], row["round"]) for row in rows] == [("a", "1"), ("a", "2"), ("c", "1"), ("c", "2")]
        assert (report / "figure.svg").read_bytes().startswith(b"<?xml")

    def test_all_that_was_counted_can_be_counted_again(self, simulated: tuple[Path, str]) -> None:
        folder, _ = simulated
        told = json.loads((folder / "report" / "points.json").read_text(encoding="utf-8"))
        curves = read_curves(settings_of(folder), folder)
        for name in ("a", "c"):
            assert [Point.of_json(one) for one in told[name]["0"]] == curves[name][0]

    def test_what_was_stopped_goes_on_where_it_was(self, simulated: tuple[Path, str], slides: Path) -> None:
        folder, _ = simulated
        first, last = (folder / "seed-0/manual-random" / name for name in ("round.json", "assisted-rare/round.json"))
        before = first.stat().st_mtime_ns
        curves = read_curves(settings_of(folder), folder)
        last.unlink()  # as if it had been killed in this round
        output = run(slides, folder)
        assert first.stat().st_mtime_ns == before
        assert "round 1" not in output.split("|")[0]
        # The same seed gives the same tiles and the same answers.
        again = read_curves(settings_of(folder), folder)["c"][0][1]
        assert (again.batch_work, again.batch_rare) == (curves["c"][0][1].batch_work, curves["c"][0][1].batch_rare)

    def test_other_settings_need_another_folder(self, simulated: tuple[Path, str], slides: Path) -> None:
        with pytest.raises(CommandError, match=r"other settings \(batch 4\)"):
            run(slides, simulated[0], batch=5)

    def test_other_times_need_no_other_rounds(self, simulated: tuple[Path, str], slides: Path) -> None:
        folder, _ = simulated
        curves = read_curves(settings_of(folder), folder)
        run(slides, folder, recognise=3.0, report=folder / "slow")
        slow, usual = (
            json.loads((folder / name / "result.json").read_text(encoding="utf-8"))["hours"]["a"]["mean"]
            for name in ("slow", "report")
        )
        cells = curves["a"][0][-1].work.recognised
        assert slow - usual == pytest.approx(1.5 * cells / 3600)

    def test_a_stop_is_heard(self, slides: Path, tmp_path: Path) -> None:
        source = slides_source(slides, test=["S04"], taxonomy="hct")
        with pytest.raises(Stopped):
            simulate(Settings(), source, tmp_path, on_progress=lambda *told: None, should_stop=lambda: True)
        assert not (tmp_path / "source" / "known.json").exists()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_the_command_and_its_processes(
        self, slides: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        words = ["simulate_rounds", "--slides", str(slides), "--test", "S04", "--taxonomy", "hct"]
        with subprocess.Popen(
            [sys.executable, "manage.py", *words, "--folder", str(tmp_path / "simulation")],
            cwd=ROOT,
            env=_environment(tmp_path / "data"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None and process.stderr is not None  # noqa: PT018
            assert "preparing the slides" in process.stdout.readline()
            begun = wait_for(lambda: psutil.Process(process.pid).children())
            process.send_signal(number)
            said = process.stderr.read()
        assert process.returncode == 1
        assert "Stopped. The same command goes on" in said
        assert not [one for one in begun if one.is_running()]

    def test_signals_are_heard_only_meanwhile(self) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with _stop_asked() as stop:
            assert not stop()
            signal.raise_signal(signal.SIGTERM)
            assert stop()
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    def test_a_process_whose_starter_is_gone_ends(self, slides: Path, tmp_path: Path) -> None:
        result = tmp_path / "known.json"
        facts = dict(slides_source(slides, test=["S04"], taxonomy="hct").facts)
        task = {"do": "prepare", "kind": "slides", "facts": facts, "settings": Settings().to_json()}
        write_json(tmp_path / "task.json", task | {"result": str(result)})
        with subprocess.Popen(
            [sys.executable, "manage.py", "simulate_rounds", "--task", str(tmp_path / "task.json")],
            cwd=ROOT,
            env=_environment(tmp_path / "data"),
            stdin=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.close()  # as the system does for one that was killed
        assert process.returncode == -signal.SIGKILL
        assert not result.exists()


class TestBadSources:
    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SimulationError, match="no such folder"):
            slides_source(tmp_path / "none", test=["S04"], taxonomy="hct")

    def test_slides_without_truth_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "S01.tif").touch()
        with pytest.raises(SimulationError, match=r"S01\.tif"):
            slides_source(tmp_path, test=["S01"], taxonomy="hct")

    def test_test_patients_must_be_there_and_not_all(self, slides: Path) -> None:
        with pytest.raises(SimulationError, match="S09"):
            slides_source(slides, test=["S04", "S09"], taxonomy="hct")
        with pytest.raises(SimulationError, match="every patient"):
            slides_source(slides, test=PATIENTS, taxonomy="hct")

    def test_a_slide_that_cannot_be_read_fails_with_its_reason(self, slides: Path, tmp_path: Path) -> None:
        source = slides_source(slides, test=["S04"], taxonomy="hct")
        broken = tmp_path / "S05.tif"
        broken.write_bytes(b"no slide")
        (tmp_path / "S05.json").write_text((slides / "S01.json").read_text(encoding="utf-8"), encoding="utf-8")
        wrong = Source(source.kind, {**source.facts, "slides": [*source.facts["slides"], str(broken)]})
        with pytest.raises(SimulationError, match=r"S05\.tif"):
            simulate(Settings(), wrong, tmp_path / "out", on_progress=lambda *told: None, should_stop=lambda: False)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"slides": None}, "Say where"),
            ({"slides": None, "project": 4711}, "no project 4711"),
            ({"rounds": 1}, "at least 2"),
        ],
    )
    @pytest.mark.django_db
    def test_the_command_says_what_is_wrong(
        self, slides: Path, tmp_path: Path, options: dict[str, object], words: str
    ) -> None:
        with pytest.raises(CommandError, match=words):
            run(**({"slides": slides, "folder": tmp_path} | options))


@pytest.mark.django_db
class TestAProjectAsSource:
    def test_its_tiles_with_truth_and_its_locked_patients(self) -> None:
        project = make_project()
        for code, locked in (("P1", False), ("P2", True)):
            slide = make_slide(project, patient=make_patient(project, code, locked=locked), tiles=2)
            make_truth(slide.tiles.first(), (1, 10, 20, 30, 40))
        source = project_source(project)
        assert [(one["patient"], one["locked"], len(one["tiles"])) for one in source.facts["slides"]] == [
            ("P1", False, 1),
            ("P2", True, 1),
        ]
        assert source.facts["slides"][0]["tiles"][0]["boxes"] == [[1, 10.0, 20.0, 30.0, 40.0]]
        json.dumps(source.facts)

    def test_in_the_simulation_they_are_the_same(self) -> None:
        project = make_project()
        for code, locked in (("P1", False), ("P2", True)):
            slide = make_slide(project, patient=make_patient(project, code, locked=locked), tiles=2)
            make_truth(slide.tiles.first(), (1, 10, 20, 30, 40))
        facts = json.loads(json.dumps(project_source(project).facts))
        copy, known = _of_project(facts)
        assert copy.pk != project.pk
        assert list(copy.taxonomy.classes.values_list("code")) == list(project.taxonomy.classes.values_list("code"))
        assert list(copy.slides.values_list("name", "sha256", "patient__locked")) == list(
            project.slides.values_list("name", "sha256", "patient__locked")
        )
        assert list(known.values()) == [[[1, 10.0, 20.0, 30.0, 40.0]]] * 2
        for slide in copy.slides.all():
            assert local_path(slide.files[0]).read_bytes() == b""

    def test_without_locked_patients_it_says_what_is_missing(self) -> None:
        with pytest.raises(SimulationError, match="locked test set"):
            project_source(make_project())
