"""Label values that clients and replicas choose, made harmless: short, printable, and few."""

from __future__ import annotations

import re

MAX_CHARS = 128
MAX_MODELS = 100
"""Model names with series of their own: each has seven histograms of some 25 buckets, so 100 make 20,000 lines."""
OTHER = "other"
NONE = "none"
"""Model of requests that name none (a list of models, a health check)."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def label_value(text: str) -> str:
    """Printable and at most 128 characters. Quotes and backslashes stay; the exposition format escapes them."""
    return _UNSAFE.sub("?", text[:MAX_CHARS])


def code_label(status: int) -> str:
    """An HTTP status, or `other` for what is none: a replica can send any three digits."""
    return str(status) if 100 <= status <= 599 else OTHER
