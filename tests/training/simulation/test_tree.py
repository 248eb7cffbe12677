"""The folders of a simulation."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from training.simulation import tree
from training.simulation.operators import Work
from training.simulation.plan import Step
from training.simulation.results import Point
from training.simulation.settings import Settings
from training.simulation.tree import SimulationError


def test_each_error_is_varied_on_the_slides_that_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "known.json").write_text("{}", encoding="utf-8")
    asked: list[tuple[Settings, Path]] = []

    def simulate(settings: Settings, source: None, folder: Path, **options: object) -> dict[str, object]:
        assert (folder / "source" / "known.json").read_text(encoding="utf-8") == "{}"
        asked.append((settings, folder))
        return {"a": {}}

    monkeypatch.setattr(tree, "simulate", simulate)
    settings = Settings(arms=("a", "c", "e"), seeds=3)
    for _ in range(2):  # stopped and started again
        asked.clear()
        varied = tree.simulate_variations(settings, tmp_path, on_progress=lambda *told: None, should_stop=lambda: False)
    assert list(varied) == [(name, factor) for name in ("miss", "mistake", "accept") for factor in (0.5, 2.0)]
    assert [one.errors.accept for one, _ in asked] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.2])
    assert {(one.seeds, tuple(one.arms)) for one, _ in asked} == {(1, ("a", "c"))}
    assert len({folder for _, folder in asked}) == 6


def point(number: int) -> Point:
    return Point(
        round=number,
        assisted=False,
        tiles=number,
        boxes=number,
        work=Work(),
        map50=0.5,
        interval=None,
        aps={},
        batch_tiles=1,
        batch_boxes=1,
        batch_rare=0,
        batch_work=Work(),
    )


Run = Callable[[Path, int, Sequence[Step]], None]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], Path]:
    """`prepared(run)`: a folder whose slides are prepared, and whose rounds are done by `run`."""

    def prepare(run: Run) -> Path:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "known.json").write_text("{}", encoding="utf-8")

        def run_round(inside: object, folder: Path, seed: int, steps: Sequence[Step]) -> None:
            run(folder, seed, steps)
            place = tree._place(folder, seed, steps)
            place.mkdir(parents=True, exist_ok=True)
            tree.write_json(place / "round.json", point(len(steps)).to_json())

        monkeypatch.setattr(tree, "_run_round", run_round)
        return tmp_path

    return prepare


def no_word(*told: object) -> None:
    pass


def go_on() -> bool:
    return False


def test_others_get_a_turn_between_two_rounds(prepared: Callable[[Run], Path]) -> None:
    seen: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        seen.append("begins")
        yield
        seen.append("ends")

    folder = prepared(lambda folder, seed, steps: seen.append(f"round {len(steps)}"))
    settings = Settings(arms=("a",), seeds=1, rounds=2)
    told: list[tuple[float, str, float | None]] = []
    tree.simulate(settings, None, folder, on_progress=lambda *one: told.append(one), should_stop=go_on, turn=turn)
    assert seen == ["begins", "round 1", "ends", "begins", "round 2", "ends"]
    assert [share for share, _, _ in told] == [0.0, 0.5]
    assert [left is None for _, _, left in told] == [True, False]


def test_rounds_run_beside_each_other_but_never_before_the_one_they_begin_with(
    prepared: Callable[[Run], Path],
) -> None:
    together = threading.Barrier(2, timeout=60)

    def run(folder: Path, seed: int, steps: Sequence[Step]) -> None:
        assert len(steps) == 1 or (tree._place(folder, seed, steps[:-1]) / "round.json").is_file()
        if len(steps) == 1:
            together.wait()  # broken, and so an error, if the first round of the other seed does not run meanwhile

    settings = Settings(arms=("a", "c"), seeds=2, rounds=3)
    curves = tree.simulate(settings, None, prepared(run), on_progress=no_word, should_stop=go_on, jobs=2)
    assert {(name, seed): len(points) for name in curves for seed, points in curves[name].items()} == {
        (name, seed): 3 for name in "ac" for seed in (0, 1)
    }


def test_a_round_that_fails_ends_the_others_before_they_are_left(prepared: Callable[[Run], Path]) -> None:
    both = threading.Barrier(2, timeout=60)
    begun: list[str] = []
    ended: list[str] = []

    def run(folder: Path, seed: int, steps: Sequence[Step]) -> None:
        if len(steps) == 1:
            both.wait()
        if seed == 0:
            raise SimulationError("no cells")

    @contextmanager
    def turn() -> Iterator[None]:
        begun.append("turn")
        try:
            yield
        finally:
            ended.append("turn")

    folder = prepared(run)
    settings = Settings(arms=("a",), seeds=2, rounds=2)
    with pytest.raises(SimulationError, match="no cells"):
        tree.simulate(settings, None, folder, on_progress=no_word, should_stop=go_on, turn=turn, jobs=2)
    assert begun == ended  # two, or three where the other seed's second round had begun by then
    assert len(begun) >= 2
    assert not list(folder.glob("seed-0/**/round.json"))


def test_an_error_is_at_most_certain() -> None:
    assert Settings().errors.scaled("accept", 20).accept == 1.0


def test_settings_survive_json() -> None:
    settings = Settings(arms=("a", "b"), seeds=2, kind="one-stage")
    assert Settings.of_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"arms": ("a", "z")}, "no arm z"), ({"arms": ()}, "at all"), ({"rounds": 1}, "Rounds: at least 2")],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**wrong)
