"""The unroll curriculum."""

from __future__ import annotations

from typing import Any

import pytest

from blur_es.config.schedule import UnrollSchedule
from blur_es.errors import InputError


def test_grows_in_stages_up_to_its_stop() -> None:
    schedule = UnrollSchedule(start=5, step=3, every=2, stop=10)
    assert [schedule.unroll(g) for g in range(1, 10)] == [5, 5, 8, 8, 10, 10, 10, 10, 10]
    assert [g for g in range(1, 10) if schedule.begins_stage(g)] == [3, 5]


def test_no_curriculum_is_one_stage() -> None:
    schedule = UnrollSchedule.constant(15)
    assert {schedule.unroll(g) for g in (1, 2, 1000)} == {15}
    assert not any(schedule.begins_stage(g) for g in range(1, 100))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": 0}, "meta.curriculum.start: found 0"),
        ({"every": True}, "meta.curriculum.every: found True"),
        ({"stop": 4}, "meta.curriculum.stop: found 4, expected 5"),
    ],
)
def test_nonsense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UnrollSchedule(**({"start": 5, "step": 5, "every": 10, "stop": 50} | values))
