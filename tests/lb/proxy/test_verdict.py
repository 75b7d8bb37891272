"""What a reply says of its replica."""

from __future__ import annotations

import pytest

from lb.effects import Outcome
from lb.errors import Reason
from lb.proxy.verdict import failure_of, is_held, judge, retry_after_s


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"", Outcome.OK),
        (302, b"", Outcome.OK),
        (400, b"loading", Outcome.CLIENT_ERROR),
        (404, b"", Outcome.CLIENT_ERROR),
        (429, b"", Outcome.OVERLOADED),
        (529, b"", Outcome.OVERLOADED),
        (500, b'{"error":"broken json"}', Outcome.SERVER_ERROR),
        (502, b"", Outcome.SERVER_ERROR),
        (503, b'{"error":{"message":"Loading model"}}', Outcome.LOADING),
        (503, b"server busy, please try again", Outcome.OVERLOADED),
        (500, b'{"detail":"cannot schedule new futures after shutdown"}', Outcome.TERMINATING),
        (503, b"Server is shutting down", Outcome.TERMINATING),
    ],
)
def test_status_and_body_together_decide(status: int, body: bytes, outcome: Outcome) -> None:
    assert judge(status, body) is outcome


@pytest.mark.parametrize(("status", "held"), [(200, False), (404, False), (429, True), (500, True), (503, True)])
def test_only_replies_that_another_replica_might_better_are_held(status: int, held: bool) -> None:
    assert is_held(status) is held


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), (b"7", 7.0), (b" 7 ", 7.0), (b"-1", None), (b"soon", None), (b"9999999", None), (b"", None),
     (b"Wed, 21 Oct 2015 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after_is_believed_in_seconds_only(value: bytes | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


def test_every_end_of_an_attempt_has_words_for_the_client() -> None:
    for outcome in Outcome:
        reason, status, message = failure_of(outcome)
        assert status in (502, 503, 504)
        assert message
        assert isinstance(reason, Reason)
    assert failure_of(Outcome.ABORTED, Reason.DRAINING)[0] is Reason.DRAINING


def test_a_500_that_is_the_clients_fault_is_no_mark_against_the_replica() -> None:
    triton = b'{"error":"failed to parse the request JSON buffer: Invalid value. at 4"}'
    assert judge(500, triton) is Outcome.CLIENT_ERROR
    assert judge(503, b'{"error":{"message":"EngineDeadError"}}') is Outcome.TERMINATING
