"""XID events: what a number means for routing.

Source: NVIDIA, "XID Errors: Analyzing Xid Errors with the Xid Catalog" (Ampere and later), column "Resolution Bucket
(Immediate Action)";
cross-checked with the numbers that NVIDIA's k8s-device-plugin leaves out of its health checks (13, 31, 43, 45, 68,
109).
The buckets become actions so:

- IGNORE, RESTART_APP, CHECK_APP: the program failed, not the card. `ignore`: the replica's own health checks see it
  die.
- RESET_GPU, RESTART_BM, and the workflows that end in a reset: `drain`.
- In between (the card works, but its memory or links have just erred): `degrade`, for a time.

Where the two sources differ (109: the catalog says reset, the plugin ignores it) the catalog, which is newer, wins.
A number that is not in the table degrades: new numbers appear with new drivers, and neither extreme is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class XidAction(StrEnum):
    """What an XID makes of its card: nothing, `degraded`, or `drain`."""

    IGNORE = "ignore"
    DEGRADE = "degrade"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class XidRule:
    """One row of the table: what the number means and what is done about it."""

    action: XidAction
    meaning: str
    bucket: str
    """The catalog's immediate action, in its own words."""


def _rows(action: XidAction, bucket: str, rows: Mapping[int, str]) -> dict[int, XidRule]:
    return {number: XidRule(action, meaning, bucket) for number, meaning in rows.items()}


_COPY_ENGINE = dict.fromkeys((39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)), "copy engine exception")
_VIDEO_ENGINE = dict.fromkeys((60, 68, 82, 83, 84, 86, 88, 89, *range(96, 106), 139), "video or JPEG engine exception")

XID_RULES: dict[int, XidRule] = {
    **_rows(
        XidAction.IGNORE,
        "RESTART_APP",
        {
            8: "GPU stopped processing a channel",
            11: "invalid or corrupted push buffer stream",
            13: "graphics engine exception",
            25: "invalid or illegal push buffer stream",
            31: "GPU memory page fault",
            32: "invalid or corrupted push buffer stream",
            69: "graphics engine class error",
            80: "corrupted data sent to GPU",
            **_COPY_ENGINE,
            **_VIDEO_ENGINE,
        },
    ),
    **_rows(
        XidAction.IGNORE,
        "IGNORE",
        {
            14: "unused",
            37: "driver firmware error",
            38: "driver firmware error",
            43: "GPU stopped processing",
            44: "graphics engine fault during context switch",
            63: "GPU memory remapping event; the pending flag says whether a reset is due",
            66: "illegal access by driver",
            67: "illegal access by driver",
            93: "InfoROM wear limit exceeded",
            106: "SMBPBI test message",
            107: "SMBPBI test message",
            108: "NVLink remote translation error",
            137: "NVLink privilege error",
            141: "CUDA fast path error",
            152: "DLA SMMU error",
            153: "DLA timeout",
            160: "channel retirement event",
        },
    ),
    **_rows(
        XidAction.IGNORE,
        "WORKFLOW_XID_45",
        {45: "preemptive cleanup after another error or a killed process"},
    ),
    **_rows(
        XidAction.IGNORE,
        "XID_154",
        {154: "GPU recovery action changed; the recovery action itself is read and judged"},
    ),
    **_rows(
        XidAction.DEGRADE,
        "RESTART_APP",
        {94: "contained memory error: the program that hit it dies, the card goes on"},
    ),
    **_rows(
        XidAction.DEGRADE,
        "IGNORE",
        {
            92: "high rate of corrected memory errors",
            121: "chip-to-chip link error",
            157: "resource retirement failure",
            161: "channel retirement failure",
        },
    ),
    **_rows(XidAction.DEGRADE, "WORKFLOW_NVLINK_ERR", {74: "NVLink error"}),
    **_rows(
        XidAction.DEGRADE,
        "WORKFLOW_NVLINK5_ERR",
        dict.fromkeys(range(144, 151), "NVLink 5 error; the recovery action says whether it is fatal"),
    ),
    **_rows(XidAction.DEGRADE, "CHECK_MECHANICALS", {54: "auxiliary power is not connected"}),
    **_rows(XidAction.DRAIN, "WORKFLOW_XID_48", {48: "double-bit ECC error"}),
    **_rows(
        XidAction.DRAIN,
        "WORKFLOW_XID_48 (detail of 48)",
        {171: "uncorrectable DRAM error", 172: "uncorrectable SRAM error"},
    ),
    **_rows(XidAction.DRAIN, "RESTART_BM", {79: "GPU has fallen off the bus"}),
    **_rows(XidAction.DRAIN, "RESTART_VM", {151: "key rotation error"}),
    **_rows(
        XidAction.DRAIN,
        "RESET_GPU",
        {
            46: "GPU stopped processing",
            62: "internal micro-controller halt",
            64: "GPU memory remapping failure",
            95: "uncontained memory error",
            109: "context switch timeout",
            110: "security fault",
            119: "GSP RPC timeout",
            120: "GSP error",
            136: "link training failed",
            140: "unrecovered ECC error",
            143: "GPU initialisation error",
            155: "NVLink software-defined error",
            156: "resource retirement event",
            158: "GPU fatal timeout",
        },
    ),
}

UNKNOWN_RULE = XidRule(XidAction.DEGRADE, "not in the table", "unknown")


def rule_for(number: int, overrides: Mapping[int, XidAction] | None = None) -> XidRule:
    """The rule for `number`; `overrides` (from policy) replaces the action and keeps the meaning."""
    rule = XID_RULES.get(number, UNKNOWN_RULE)
    if overrides and number in overrides:
        return XidRule(overrides[number], rule.meaning, "policy")
    return rule
