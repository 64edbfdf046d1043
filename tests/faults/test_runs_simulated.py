"""Thousands of runs as they would go in bad years, each from a seed that brings it back.

`AUTOPILOT_TEST_SEEDS=10000` runs as many; the suite itself runs a few hundred.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

from router.run import State
from tests.faults.simulated import END, simulate

SEEDS = int(os.environ.get("AUTOPILOT_TEST_SEEDS", "300"))
TWICE = SEEDS // 4


async def _histories(rate: float, seeds: range) -> Counter[State]:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of processes that died
    ends: Counter[State] = Counter()
    for seed in seeds:
        digest, state = await simulate(seed, rate)
        ends[state] += 1
        if seed < TWICE:
            assert (digest, state) == await simulate(seed, rate), f"seed {seed} went another way"
    return ends


async def test_d3_with_a_tenth_of_all_calls_failing_every_run_ends() -> None:
    """Of the store or of an autopilot, done or not; each effect once per key, same seed, same history."""
    ends = await _histories(0.1, range(SEEDS))
    assert set(ends) <= END
    assert {State.COMPLETED, State.FAILED, State.ROLLED_BACK} <= set(ends)


async def test_d3_with_a_fifth_of_all_calls_failing_every_run_ends() -> None:
    """At twice the rate, for fewer seeds."""
    assert set(await _histories(0.2, range(SEEDS // 6))) <= END


async def test_d3_without_faults_only_scripts_decide() -> None:
    """The simulation itself is sound: what is scripted to go well does, where nothing fails."""
    ends = await _histories(0.0, range(SEEDS // 6))
    assert ends[State.COMPLETED] > ends[State.FAILED] / 4
