"""The prefix index against a plain model of it."""

from __future__ import annotations

import random
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from lb.routing.prefix_index import PrefixIndex

CHAINS = [tuple(hash((branch, *range(i + 1))) for i in range(12)) for branch in range(3)]
PROMPTS = [chain[:size] for chain in CHAINS for size in (0, 1, 3, 7, 12)]


def held(index: PrefixIndex, prompt: tuple[int, ...], replica: int) -> int:
    return next((blocks for mask, blocks in index.match(prompt) if mask >> replica & 1), 0)


def test_finds_the_longest_beginning_of_each_replica() -> None:
    index = PrefixIndex(1000)
    chain = CHAINS[0]
    index.note(0, chain[:3])
    index.note(1, chain[:7])
    assert index.match(chain) == [(0b10, 7), (0b11, 3)]
    assert [held(index, chain[:5], replica) for replica in (0, 1, 2)] == [3, 5, 0]
    assert index.match(CHAINS[1]) == []
    assert index.match(()) == []


def test_forgets_a_replica_without_a_trace() -> None:
    index = PrefixIndex(1000)
    index.note(0, CHAINS[0])
    index.note(1, CHAINS[0])
    index.forget(0)
    assert index.match(CHAINS[0]) == [(0b10, 12)]
    index.forget(1)
    assert (len(index), index.match(CHAINS[0])) == (0, [])


def test_the_tail_of_a_prompt_is_forgotten_before_its_head() -> None:
    index = PrefixIndex(10)
    index.note(0, CHAINS[0][:8])
    index.note(0, CHAINS[1][:6])
    assert held(index, CHAINS[0], 0) == 4
    assert held(index, CHAINS[1], 0) == 6


def test_a_prompt_longer_than_the_cache_leaves_its_head() -> None:
    index = PrefixIndex(1000)
    index.bound(0, 5)
    index.note(0, CHAINS[0])
    assert held(index, CHAINS[0], 0) == 5
    assert len(index) == 5


def test_a_flood_of_unique_prompts_stays_within_the_capacity() -> None:
    rng = random.Random(1)
    index = PrefixIndex(4000)
    index.resize(4000, 8)
    for _ in range(3000):
        index.note(rng.randrange(8), tuple(rng.getrandbits(60) for _ in range(20)))
    assert len(index) <= 4000
    assert len(index._holders) <= 4000


def test_more_replicas_share_the_same_capacity() -> None:
    index = PrefixIndex(24)
    index.note(0, CHAINS[0])
    index.note(0, CHAINS[1])
    assert len(index) == 24
    index.resize(24, 4)
    assert len(index) == 6


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(PROMPTS), st.sampled_from(("note", "note", "note", "forget"))),
        max_size=60,
    ),
    st.integers(1, 7),  # so few that the order of use is exact
)
def test_agrees_with_one_cache_per_replica(steps: list[tuple[int, tuple[int, ...], str]], capacity: int) -> None:
    index = PrefixIndex(capacity * 4)
    index.resize(capacity * 4, 4)
    plain: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(4)]
    for replica, prompt, action in steps:
        cache = plain[replica]
        if action == "forget":
            index.forget(replica)
            cache.clear()
            continue
        index.note(replica, prompt)
        for block in reversed(prompt[:capacity]):
            cache.pop(block, None)
            cache[block] = None
        while len(cache) > capacity:
            cache.popitem(last=False)
    for prompt in PROMPTS:
        for replica, cache in enumerate(plain):
            expected = 0
            while expected < len(prompt) and prompt[expected] in cache:
                expected += 1
            assert held(index, prompt, replica) == expected
    assert len(index) == sum(map(len, plain))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=80), st.integers(8, 400))
def test_what_was_used_last_is_held_whatever_the_capacity(steps: list[tuple[int, int]], capacity: int) -> None:
    index = PrefixIndex(capacity)
    index.resize(capacity, 1)
    noted: list[tuple[int, ...]] = []
    for branch, size in steps:
        # Every other branch shares its first half with the one before.
        prompt = tuple(hash((branch if at >= 15 else branch // 2, *range(at + 1))) for at in range(size))
        index.note(0, prompt)
        noted.append(prompt)
        assert len(index) <= capacity
        recent: set[int] = set()
        for one in reversed(noted):
            recent.update(one)
            if len(recent) > capacity // 2:
                break
            assert held(index, one, 0) == len(one)


def test_a_prompt_that_parts_from_another_is_found_up_to_there() -> None:
    trunk = tuple(range(100, 300))
    for at in (1, 2, 3, 50, 99, 150, 198, 199, 200):
        index = PrefixIndex(10_000)
        index.note(0, (*trunk[:at], *range(1000, 1040)))
        index.note(1, trunk[:1])
        expected = [(0b01, at), (0b11, 1)] if at > 1 else [(0b11, 1)]
        assert index.match(trunk) == expected
