import pytest

from lb.admission.limits import misses_deadline, wait_deadline
from lb.settings import AdmissionSettings


@pytest.mark.parametrize(
    ("wait_s", "service_s", "deadline_at", "missed"),
    [
        (0.0, 1e9, None, False),
        (0.0, 5.0, 110.0, False),
        (2.0, 10.0, 110.0, False),  # 12 s predicted, 9 s at best: may still be in time
        (10.0, 10.0, 110.0, True),
        (0.0, 0.0, 100.0, True),  # already over
        (0.0, 0.0, 99.0, True),
    ],
)
def test_misses_deadline(wait_s: float, service_s: float, deadline_at: float | None, missed: bool) -> None:
    assert misses_deadline(100.0, wait_s, service_s, deadline_at) is missed


def test_wait_deadline_is_patience_or_the_last_useful_start() -> None:
    settings = AdmissionSettings(queue_wait_s=60.0, cold_wait_s=300.0)
    assert wait_deadline(settings, 10.0, None, 5.0, cold=False) == 70.0
    assert wait_deadline(settings, 10.0, None, 5.0, cold=True) == 310.0
    assert wait_deadline(settings, 10.0, 40.0, 8.0, cold=False) == pytest.approx(34.0)
    assert wait_deadline(settings, 10.0, 500.0, 8.0, cold=False) == 70.0
    assert wait_deadline(settings, 10.0, 12.0, 80.0, cold=False) == 10.0
