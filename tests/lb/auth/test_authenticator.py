"""API keys: who is let in, who has to wait, and that nothing of a key comes back."""

from __future__ import annotations

import hashlib
import random
import statistics
import time

import pytest

from lb.auth import BACKOFF_MAX_S, FORGET_S, FREE_FAILURES, MAX_SOURCES, Authenticator, key_digest
from lb.errors import ProxyError, Reason
from lb.settings import KeySettings

ALICE = KeySettings(name="alice", sha256=key_digest("sk-alice-0123456789"))
BOB = KeySettings(name="bob", sha256=key_digest("sk-bob-0123456789"), priority=-1)


def authenticator() -> Authenticator:
    return Authenticator((ALICE, BOB))


def refusal(auth: Authenticator, key: bytes | None, *, source: str = "10.0.0.1", now: float = 0.0) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        auth.authenticate(key, source=source, now=now)
    return caught.value


def test_without_keys_everyone_is_the_default_tenant() -> None:
    auth = Authenticator()
    assert not auth.required
    assert auth.authenticate(b"Bearer anything", source="10.0.0.1", now=0.0) is None


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "api_key", "name"),
    [
        (b"Bearer sk-alice-0123456789", None, None, "alice"),
        (b"bearer   sk-bob-0123456789 ", None, None, "bob"),
        (None, b"sk-alice-0123456789", None, "alice"),
        (None, None, b"sk-bob-0123456789", "bob"),
        (b"Basic Zm9vOmJhcg==", b"sk-bob-0123456789", None, "bob"),
        (b"Bearer wrong", b"sk-alice-0123456789", None, "alice"),
    ],
)
def test_a_key_is_found_in_each_header(
    authorization: bytes | None, x_api_key: bytes | None, api_key: bytes | None, name: str
) -> None:
    key = authenticator().authenticate(authorization, x_api_key, api_key, source="10.0.0.1", now=0.0)
    assert key is not None
    assert key.name == name


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer sk-alice",
        b"Bearer sk-alice-0123456789x",
        b"Basic sk-alice-0123456789",
        b"sk-alice-0123456789",
        b"Bearer " + b"A" * 1_000_000,
        b"Bearer \xff\x00\xfe",
        b"Bearer " + ALICE.sha256.encode(),
    ],
)
def test_l01_a_wrong_key_is_401_and_is_not_echoed(authorization: bytes | None) -> None:
    error = refusal(authenticator(), authorization)
    assert (error.reason, error.status) == (Reason.UNAUTHORIZED, 401)
    assert "sk-alice" not in error.message
    assert len(error.message) < 200


def test_l01_a_megabyte_of_key_is_not_hashed() -> None:
    auth = authenticator()
    key = b"Bearer " + b"A" * 1_000_000
    taken_s = []
    for attempt in range(5):
        started = time.process_time()
        for number in range(100):
            refusal(auth, key, source=f"{attempt}.{number}")
        taken_s.append(time.process_time() - started)
    assert min(taken_s) < 0.1  # hashing 100 MB takes longer, whatever the neighbours do


def test_l02_a_good_prefix_takes_no_longer_than_noise() -> None:
    """Medians of interleaved samples, as single timings are at the mercy of the machine."""
    auth = authenticator()
    rng = random.Random(7)
    prefix = [b"sk-alice-012345678" + bytes([rng.randrange(65, 90)]) for _ in range(50)]
    noise = [bytes(rng.randrange(65, 90) for _ in range(19)) for _ in range(50)]
    timings: dict[str, list[int]] = {"prefix": [], "noise": []}
    for turn in range(4000):
        for label, keys in (("prefix", prefix), ("noise", noise)):
            started = time.perf_counter_ns()
            assert auth._find(keys[turn % 50]) is None
            timings[label].append(time.perf_counter_ns() - started)
    medians = {label: statistics.median(values) for label, values in timings.items()}
    assert abs(medians["prefix"] - medians["noise"]) / medians["noise"] < 0.10


def test_l04_guessing_is_slowed_down_and_forgotten() -> None:
    auth = authenticator()
    for _ in range(FREE_FAILURES + 1):
        assert refusal(auth, b"Bearer guess").status == 401
    waiting = refusal(auth, b"Bearer guess")
    assert (waiting.reason, waiting.status, waiting.retry_after_s) == (Reason.RATE_LIMITED, 429, 1.0)
    assert refusal(auth, b"Bearer guess", source="10.0.0.2").status == 401
    now = 0.0
    waits = []
    for _ in range(12):
        now += BACKOFF_MAX_S
        assert refusal(auth, b"Bearer guess", now=now).status == 401
        waits.append(refusal(auth, b"Bearer guess", now=now).retry_after_s)
    assert waits[:3] == [2.0, 4.0, 8.0]
    assert waits[-1] == BACKOFF_MAX_S
    later = now + FORGET_S + 1
    assert refusal(auth, b"Bearer guess", now=later).status == 401
    assert refusal(auth, b"Bearer guess", now=later).status == 401


def test_l04_a_waiting_source_cannot_find_a_key_but_its_good_clients_go_on() -> None:
    auth = authenticator()
    auth.authenticate(b"Bearer sk-alice-0123456789", source="nat", now=0.0)
    for _ in range(FREE_FAILURES + 1):
        refusal(auth, b"Bearer guess", source="nat")
    assert auth.authenticate(b"Bearer sk-alice-0123456789", source="nat", now=0.1) is ALICE
    assert refusal(auth, b"Bearer sk-bob-0123456789", source="nat", now=0.1).status == 429
    assert auth.authenticate(b"Bearer sk-bob-0123456789", source="nat", now=1.1) is BOB


def test_l04_the_table_of_sources_is_bounded() -> None:
    auth = authenticator()
    for number in range(MAX_SOURCES + 500):
        refusal(auth, b"Bearer guess", source=f"10.1.{number >> 8}.{number & 255}")
        auth.authenticate(b"Bearer sk-bob-0123456789", source=f"10.2.{number >> 8}.{number & 255}", now=0.0)
    assert auth.watched_sources == MAX_SOURCES
    assert len(auth._seen) == MAX_SOURCES


def test_key_digest_is_sha256() -> None:
    assert key_digest("abc") == hashlib.sha256(b"abc").hexdigest()
