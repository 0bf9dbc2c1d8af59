"""The unroll curriculum."""

from __future__ import annotations

from pathlib import Path

import pytest

from blur_es.config import Experiment
from blur_es.errors import InputError
from tests.experiments import small


def with_curriculum(folder: Path, curriculum: str) -> Experiment:
    return small(folder, f"meta.curriculum={curriculum}", "episode.unroll=10")


@pytest.mark.parametrize("stop", ["", ", stop: 10"])
def test_the_unroll_grows_in_stages_up_to_its_stop(tmp_path: Path, stop: str) -> None:
    config = with_curriculum(tmp_path, f"{{start: 5, step: 3, every: 2{stop}}}")
    assert [config.unroll(g) for g in range(1, 10)] == [5, 5, 8, 8, 10, 10, 10, 10, 10]
    assert [g for g in range(1, 10) if config.begins_stage(g)] == [3, 5]


def test_without_a_curriculum_there_is_one_stage(tmp_path: Path) -> None:
    config = small(tmp_path, "episode.unroll=15")
    assert {config.unroll(g) for g in (1, 2, 1000)} == {15}
    assert not any(config.begins_stage(g) for g in range(1, 100))


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        ("{start: 0, step: 5, every: 10}", "meta.curriculum.start: found 0"),
        ("{start: 5, step: 5, every: true}", "meta.curriculum.every: found True"),
        ("{start: 5, step: 5, every: 10, stop: 4}", r"meta.curriculum.stop: .*expected.* 5 or"),
        ("{start: 11, step: 5, every: 10}", r"meta.curriculum.start: .*\(10\) is shorter"),
    ],
)
def test_a_curriculum_that_does_not_grow_is_refused(
    tmp_path: Path, curriculum: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_curriculum(tmp_path, curriculum)
