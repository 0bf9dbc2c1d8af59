"""Cutting work into chunks, with simulated workers, so that every case can be produced."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blur_es.errors import InputError
from blur_es.fleet.chaos import Chaos, Fault
from blur_es.fleet.chunks import (
    DRIVER_SECONDS_PER_CALL,
    ROUNDS,
    Chunk,
    ItemRange,
    Outstanding,
    Plan,
    chunk_size,
)
from blur_es.fleet.failures import (
    DEATHS,
    RESPONSES,
    Failure,
    NextStep,
    classify,
    deadline_seconds,
    next_step,
)
from blur_es.fleet.speeds import Speeds

BACKENDS = ("numba",)


def speeds_of(*speeds: float | None, batch: int = 1) -> Speeds:
    """The speeds of workers 0, 1 and so on."""
    workers = {number: (BACKENDS[0], speed) for number, speed in enumerate(speeds)}
    return Speeds(workers, {BACKENDS[0]: batch})


def rows(chunk: Chunk) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return (np.arange(chunk.start, chunk.stop),)


@settings(deadline=None)
@given(
    count=st.integers(1, 200),
    speeds=st.lists(st.sampled_from([None, 1.0, 10.0, 1000.0]), min_size=1, max_size=5),
    batch=st.integers(1, 9),
    data=st.data(),
)
def test_every_item_is_done_once_whatever_is_lost(
    count: int, speeds: list[float | None], batch: int, data: st.DataObject
) -> None:
    """Chunks are completed, lost or overtaken in any order; each row is in the right place."""
    plan = Plan(count, [ItemRange(0, count, BACKENDS)])
    workers = range(len(speeds))
    known, fast = speeds_of(*speeds, batch=batch), speeds_of(*[1e9] * 5, batch=batch)
    flying: dict[int, Chunk] = {}
    done = 0
    for _ in range(50 * count + 100):
        if not plan.missing:
            break
        for number in workers:
            if number not in flying:
                outstanding = [Outstanding(each, 100.0) for each in flying.values()]
                chunk = plan.take(number, known, fresh=True) or plan.repeat(
                    number, fast, 1, outstanding
                )
                if chunk is not None:
                    flying[number] = chunk
        assert flying
        number = data.draw(st.sampled_from(sorted(flying)))
        chunk = flying.pop(number)
        event = data.draw(st.sampled_from(["result", "result", "lost", "cut"]))
        if event == "result":
            done += plan.fill(chunk, rows(chunk))
        elif event == "cut" and len(chunk) > 1:
            plan.halve(chunk)
        else:
            plan.put_back(chunk)
    else:
        # Every chunk was lost again and again, which the plan cannot prevent.
        return
    assert done == count
    np.testing.assert_array_equal(plan.stacked()[0], np.arange(count))


def test_chunks_shrink_and_follow_speed() -> None:
    sizes = []
    remaining = 1000
    while remaining:
        sizes.append(chunk_size(remaining, 0.25, 1.0, 1, 4))
        remaining -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 50
    assert sizes[-1] == 1
    assert chunk_size(1000, 0.4, 1.0, 1, 4) == pytest.approx(
        4 * chunk_size(1000, 0.1, 1.0, 1, 4), abs=2
    )
    # A call is worth its overhead, and device batches are full.
    assert chunk_size(400, 0.01, 1000.0, 1, 4) == 10
    assert chunk_size(1000, 0.25, 1.0, 16, 4) % 16 == 0
    # With many workers chunks are longer, so that the driver can serve all, even if some get none.
    round_trip = 1000 * DRIVER_SECONDS_PER_CALL
    assert chunk_size(200_000, 0.001, 100.0, 1, 1000) == 100 * ROUNDS * round_trip
    assert chunk_size(2000, 0.001, 100.0, 1, 1000) == 100 * round_trip > 2000 * 0.001
    assert chunk_size(5, 0.25, 1.0, 16, 4) == 5


@pytest.mark.parametrize("population", [40, 100, 400])
def test_dispatch_is_close_to_the_ideal(population: int) -> None:
    """Unequal evaluations and a slow worker, in simulated time and without overhead."""
    speeds = [1.0, 1.0, 1.0, 0.25]
    efficiencies = []
    for seed in range(20):
        costs = np.random.default_rng(seed).integers(10, 101, population) / 55
        plan = Plan(population, [ItemRange(0, population, BACKENDS)])
        known = speeds_of(*speeds)
        flying: list[tuple[float, int, Chunk, float]] = []
        now = 0.0
        while plan.missing:
            busy = {number for _, number, _, _ in flying}
            idle = sorted(set(range(4)) - busy, key=lambda number: -speeds[number])
            for number in idle:
                chunk = plan.take(number, known, fresh=False)
                if chunk is None:
                    outstanding = [
                        Outstanding(each, abs(began + len(each) / speeds[who] - now))
                        for _, who, each, began in flying
                    ]
                    outstanding.sort(key=lambda each: -each.seconds)
                    chunk = plan.repeat(number, known, len(idle), outstanding)
                if chunk is not None:
                    took = costs[chunk.start : chunk.stop].sum() / speeds[number]
                    heapq.heappush(flying, (now + took, number, chunk, now))
            now, _, chunk, _ = heapq.heappop(flying)
            plan.fill(chunk, rows(chunk))
        efficiencies.append(costs.sum() / sum(speeds) / now)
    assert np.median(efficiencies) > 0.85


def test_a_chunk_that_kills_is_cut_down_to_one_item_on_fresh_workers() -> None:
    plan = Plan(16, [ItemRange(0, 16, BACKENDS)])
    workers = speeds_of(None)
    poison, deaths, fresh_deaths = 11, 0, 0
    alive = {"node"}
    while True:
        chunk = plan.take(0, workers, fresh=False)
        fresh = chunk is None
        if chunk is None:
            chunk = plan.take(0, workers, fresh=True)
        assert chunk is not None
        assert chunk.alone == fresh
        if not chunk.start <= poison < chunk.stop:
            plan.fill(chunk, rows(chunk))
            continue
        deaths += 1
        fresh_deaths += fresh
        chunk.deaths.append("node")
        step = next_step(chunk, alive)
        if step is NextStep.HALVE:
            plan.halve(chunk)
        elif step is NextStep.ISOLATE:
            plan.isolate(chunk)
        elif step is NextStep.REPEAT:
            plan.put_back(chunk)
        else:
            break
    assert (chunk.start, chunk.stop) == (poison, poison + 1)
    assert fresh_deaths == DEATHS
    assert deaths <= 2 * DEATHS + 4
    assert plan.missing == 1


def test_deaths_with_their_node_do_not_count_against_a_chunk() -> None:
    chunk = Chunk(0, 4, BACKENDS, deaths=["gone", "gone", "gone", "here"])
    assert next_step(chunk, {"here"}) is NextStep.REPEAT
    assert next_step(chunk, {"here", "gone"}) is NextStep.HALVE


def test_a_suspect_chunk_is_not_computed_by_two_workers_at_once() -> None:
    plan = Plan(4, [ItemRange(0, 4, BACKENDS)])
    workers = speeds_of(1.0)
    chunk = plan.take(0, workers, fresh=True)
    assert chunk is not None
    late = Outstanding(chunk, 1e6)
    repeated = plan.repeat(0, workers, 1, [late])
    assert repeated is not None
    # Two workers compute it by now.
    assert plan.repeat(0, workers, 1, [late]) is None
    plan.put_back(repeated)
    again = plan.repeat(0, workers, 1, [late])
    assert again is not None
    plan.put_back(again)
    chunk.deaths.append("node")
    assert plan.repeat(0, workers, 1, [late]) is None


def test_a_batch_is_not_divided() -> None:
    """A worker of eight cores takes as long over one genome as over eight."""
    speeds = speeds_of(8.0, 8.0, batch=8)
    assert speeds.seconds(0, 1) == speeds.seconds(0, 8) == 1.0
    assert speeds.seconds(0, 9) == 2.0
    plan = Plan(24, [ItemRange(0, 24, BACKENDS)])
    chunk = plan.take(0, speeds, fresh=True)
    assert chunk is not None
    assert len(chunk) % 8 == 0
    rest = plan.take(1, speeds, fresh=True)
    assert rest is not None
    # Half of the chunk would take as long as all of it, so no worker would be sooner...
    assert plan.repeat(1, speeds, 2, [Outstanding(chunk, 1.0)]) is None
    # ...unless the other is late by more than that, and then a half is of no use.
    repeated = plan.repeat(1, speeds, 2, [Outstanding(chunk, 5.0)])
    assert repeated is not None
    assert len(repeated) == min(8, len(chunk))


def test_work_for_others_is_not_repeated() -> None:
    plan = Plan(4, [ItemRange(0, 4, ("jax",))])
    speeds = Speeds({0: ("jax", 1.0), 1: ("numba", 100.0)})
    chunk = plan.take(0, speeds, fresh=True)
    assert chunk is not None
    assert plan.repeat(1, speeds, 1, [Outstanding(chunk, 100.0)]) is None


def test_a_result_with_too_few_rows_is_refused() -> None:
    plan = Plan(4, [ItemRange(0, 4, BACKENDS)])
    chunk = plan.take(0, speeds_of(None), fresh=True)
    assert chunk is not None
    with pytest.raises(ValueError, match="expected"):
        plan.fill(chunk, (np.zeros(len(chunk) - 1),))


def test_deadlines_follow_measured_times() -> None:
    assert deadline_seconds(100.0, True, 0) == 2000.0
    assert deadline_seconds(0.001, True, 0) == 30.0
    assert deadline_seconds(0.001, True, 2) == 120.0
    assert deadline_seconds(0.001, False, 0) > 600.0
    assert deadline_seconds(None, False, 0) > 1000.0


def test_errors_of_ray_have_their_classes() -> None:
    from ray import exceptions

    assert classify(exceptions.ActorUnavailableError("cut", None)) is Failure.UNREACHABLE
    assert classify(exceptions.ObjectStoreFullError("full")) is Failure.STORE_FULL
    too_much = exceptions.OutOfMemoryError("too much")  # type: ignore[no-untyped-call]
    assert classify(too_much) is Failure.OUT_OF_MEMORY
    assert classify(exceptions.ActorDiedError()) is Failure.KILLED
    assert classify(exceptions.ActorUnschedulableError("gone")) is Failure.NODE_LOST
    assert classify(exceptions.ObjectLostError("00", None, "")) is Failure.RESULT_LOST
    preempted = exceptions.RayActorError(preempted=True)
    assert classify(preempted) is Failure.PREEMPTED
    for failure in (Failure.PREEMPTED, Failure.INJECTED, Failure.NODE_LOST):
        assert not RESPONSES[failure].blames_chunk
    assert set(RESPONSES) == set(Failure)


# Chaos


def test_chaos_is_a_function_of_the_seed() -> None:
    text = "kill-worker:0.05,slow-worker:0.1,drop-result:0.02,hang-worker:0.01,kill-node:1"
    chaos = Chaos.parse(text, 3)
    faults = [chaos.injection(call) for call in range(4000)]
    assert faults == [Chaos.parse(text, 3).injection(call) for call in range(4000)]
    assert faults != [Chaos.parse(text, 4).injection(call) for call in range(4000)]
    for fault, rate in chaos.rates.items():
        found = sum(each is not None and each.fault is fault for each in faults) / len(faults)
        assert found == pytest.approx(rate, rel=0.4)
    assert any(chaos.kills_node(call) for call in range(200))
    assert not any(Chaos.parse("slow-worker:0.1", 3).kills_node(call) for call in range(200))
    assert Chaos.parse(" kill-worker : 0.5 ", 0).rates == {Fault.KILL_WORKER: 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill-wroker:0.1", "did you mean 'kill-worker'"),
        ("kill-worker", "kill-worker: found '', expected a rate"),
        ("kill-worker:often", "found 'often'"),
        ("kill-worker:1.5", "expected a rate from 0 to 0.9"),
        ("kill-worker:nan", "found 'nan'"),
        ("kill-worker:0.5,hang-worker:0.5", "the sum of the rates is 1"),
        ("kill-node:0.5", "expected the number of nodes"),
        ("kill-node:1,kill-node:1", "is given twice"),
        ("", "unknown fault ''"),
    ],
)
def test_wrong_chaos_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Chaos.parse(text, 0)
