"""What a PromQL expression asks for: its metrics, and the labels that it uses of each. No parser: names and braces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

KEYWORDS = {
    "and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right", "bool", "offset", "sum",
    "min", "max", "avg", "count", "rate", "increase", "changes", "histogram_quantile", "absent", "vector",
    "avg_over_time", "inf",
}  # fmt: skip
"""Functions and words that the shipped expressions use; a new one must be added here, so that it is no typing error."""
ALWAYS = {"instance", "job", "le"}
"""Labels that Prometheus adds, and that of buckets."""
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHERS = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")


def metrics(expression: str) -> set[str]:
    """Names of the metrics in an expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = _GROUPING.sub(" ", bare)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    return {
        name for name in _NAME.findall(bare) if name.lower() not in KEYWORDS and not re.fullmatch(r"[esmhd]\d*", name)
    }


def unknown_labels(expression: str, labels: Mapping[str, Set[str]]) -> set[str]:
    """`metric{label}` and grouping labels that no metric of the expression has. `labels` of each metric by its name."""
    wrong = set()
    for metric, matchers in _MATCHERS.findall(expression):
        wrong |= {f"{metric}{{{name}}}" for name in _LABEL.findall(matchers) if name not in {*labels[metric], *ALWAYS}}
    anywhere = ALWAYS.union(*(labels[metric] for metric in metrics(expression)))
    for grouping in _GROUPING.findall(expression):
        wrong |= {f"by ({name})" for name in map(str.strip, grouping.split(",")) if name and name not in anywhere}
    return wrong
