"""The folders of a simulation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from training.simulation import tree
from training.simulation.settings import Settings


def test_each_error_is_varied_on_the_slides_that_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "known.json").write_text("{}", encoding="utf-8")
    asked: list[tuple[Settings, Path]] = []

    def simulate(settings: Settings, source: None, folder: Path, **options: object) -> dict[str, object]:
        assert (folder / "source" / "known.json").read_text(encoding="utf-8") == "{}"
        asked.append((settings, folder))
        return {"a": {}}

    monkeypatch.setattr(tree, "simulate", simulate)
    settings = Settings(seeds=3)
    for _ in range(2):  # stopped and started again
        asked.clear()
        varied = tree.simulate_variations(settings, tmp_path, on_progress=lambda *told: None, should_stop=lambda: False)
    assert list(varied) == [(name, factor) for name in ("miss", "mistake", "accept") for factor in (0.5, 2.0)]
    assert [one.errors.accept for one, _ in asked] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.2])
    assert {one.seeds for one, _ in asked} == {1}
    assert len({folder for _, folder in asked}) == 6


def test_others_get_a_turn_between_two_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        seen.append("begins")
        yield
        seen.append("ends")

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "known.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(tree, "_run_round", lambda inside, folder, seed, steps: seen.append(f"round {len(steps)}"))
    settings = Settings(arms=("a",), seeds=1, rounds=2)
    told: list[tuple[float, str, float | None]] = []
    tree.simulate(
        settings, None, tmp_path, on_progress=lambda *one: told.append(one), should_stop=lambda: False, turn=turn
    )
    assert seen == ["begins", "round 1", "ends", "begins", "round 2", "ends"]
    assert [share for share, _, _ in told] == [0.0, 0.5]
    assert [left is None for _, _, left in told] == [True, False]


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
