"""What a prompt weighs: bytes of text, share of wide script, exact token ids, and the hashes of its leading blocks.

All from the raw JSON, without decoding it: the punctuation around messages stands in for the chat template's own
tokens, and the ratio of bytes to tokens is learned from what runtimes count.
"""

from __future__ import annotations

import re
from typing import Final

from xxhash import xxh3_64_intdigest

from lb.request import PREFIX_BLOCK_BYTES, RequestInfo
from lb.surfaces.fields import Raw, items
from lb.surfaces.long_strings import Stretch

MODEL_NAME_CHARS = 512
"""Longer model names are cut: no real one comes near, and the name is a key in several tables."""
BLOB_TEXT_BYTES = 4096
"""Text bytes that an image or a sound counts for: about 1,000 tokens, what current models spend on a megapixel."""
_WINDOW: Final = 512
_BLOB_WINDOW: Final = 64
_SPACE: Final = 32
_BLOB = re.compile(rb"(?:[A-Za-z0-9+/_-]|\\/){64}")
_HIGH_BYTES = bytes(range(128, 256))
_CHOICES_MAX = 1024


def set_model(info: RequestInfo, model: str | None) -> None:
    """Take the body's model name, unless it is missing or empty."""
    if model:
        info.model = model if len(model) <= MODEL_NAME_CHARS else model[:MODEL_NAME_CHARS]


def set_choices(info: RequestInfo, count: int | None) -> None:
    """Take `n` or `best_of`, within reason."""
    if count is not None and count > 1:
        info.choices = min(count, _CHOICES_MAX)


def set_session(info: RequestInfo, *keys: str | None) -> None:
    """Tie the request to the first key given, unless a header did already."""
    if info.session is None:
        for key in keys:
            if key:
                info.session = stable_hash(key)
                return


def set_text(info: RequestInfo, *parts: Raw | Stretch) -> None:
    """Weigh a prompt made of `parts`, in the order in which a chat template puts them (tools, system, messages).

    Sets prompt_bytes, prompt_wide_ratio and prefix. `info.model` and `info.adapter` must be set before, as replicas
    share no cache between models.
    """
    data, start, stop = _placed(parts)
    if start == stop:
        return
    blobs = 0
    if _may_hold_blobs(data, start, stop):
        data, blobs = without_blobs(data[start:stop])
        start, stop = 0, len(data)
    length = size = stop - start
    sample = sampled(data, start, stop)
    share = size / len(sample)
    escapes = share * sample.count(b"\\u") if sample.find(b"\\") >= 0 else 0.0
    high = 0.0 if sample.isascii() else share * _count_high(sample)
    if escapes:
        size -= int(3.0 * escapes)  # \uXXXX is 6 bytes of JSON and about 3 of UTF-8
    info.prompt_bytes = size + blobs * BLOB_TEXT_BYTES
    wide = high + 3.0 * escapes
    info.prompt_wide_ratio = min(1.0, wide / size) if wide > 0.0 < size else 0.0
    if length > PREFIX_BLOCK_BYTES:
        info.prefix = prefix_hashes(_owner(info), data, start, stop)


def _placed(parts: tuple[Raw | Stretch, ...]) -> tuple[bytes, int, int]:
    """The text of all parts: (bytes, where in them it starts, where it stops). No copy of a `Stretch` that is alone."""
    only: Raw | Stretch | None = None
    for part in parts:
        if len(part):
            if only is not None:
                data = b"".join([one.copy() if isinstance(one, Stretch) else one for one in parts])
                return data, 0, len(data)
            only = part
    if only is None:
        return b"", 0, 0
    if isinstance(only, Stretch):
        return only.whole, only.start, only.stop
    data = b"".join((only,))
    return data, 0, len(data)


def set_prompt(info: RequestInfo, raw: Raw, *before: Raw) -> None:
    """Weigh a `prompt` or `input`: a text, several texts, token ids, or several lists of token ids.

    Several prompts multiply the sequences to generate; `before` is text in front of it (suffix, system).
    """
    head = bytes(memoryview(raw)[:64]).lstrip()
    if not head.startswith(b"["):
        set_text(info, *before, raw)
        return
    inner = head[1:].lstrip()
    if inner[:1].isdigit() or inner[:1] == b"[":
        nested = inner[:1] == b"["
        data = bytes(raw)
        if b'"' in data or (nested and not inner[1:].lstrip()[:1].isdigit()):
            set_text(info, *before, raw)
            return
        info.prompt_tokens = data.count(b",") + 1
        if nested:
            set_choices(info, (data.count(b"[") - 1) * info.choices)
        if len(data) > PREFIX_BLOCK_BYTES:
            info.prefix = prefix_hashes(_owner(info), data, 0, len(data))
        return
    if inner[:1] == b'"':
        set_choices(info, len(items(raw)) * info.choices)
    set_text(info, *before, raw)


def stable_hash(key: str) -> int:
    """64 bits, the same in every process: what instances tell each other of sessions and prefixes must agree."""
    return xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


def _owner(info: RequestInfo) -> int:
    """Seed of a prompt's hashes: replicas share no cache between models or adapters."""
    return stable_hash(f"{info.model}\0{info.adapter}")


def prefix_hashes(seed: int, data: bytes, start: int, stop: int) -> tuple[int, ...]:
    """Chained hashes of the full blocks of `data[start:stop]`. Its last byte, which closes the array or string, is left
    out, so that a conversation and its continuation agree up to where the first ends."""
    hashes: list[int] = []
    digest = xxh3_64_intdigest
    for at in range(start, stop - PREFIX_BLOCK_BYTES, PREFIX_BLOCK_BYTES):
        seed = digest(data[at : at + PREFIX_BLOCK_BYTES], seed)
        hashes.append(seed)
    return tuple(hashes)


def _may_hold_blobs(data: bytes, start: int, stop: int) -> bool:
    for at in range(start + PREFIX_BLOCK_BYTES, stop - _BLOB_WINDOW + 1, PREFIX_BLOCK_BYTES):
        window = data[at : at + _BLOB_WINDOW]
        if _SPACE not in window and _BLOB.match(window) is not None:
            return True
    return False


def without_blobs(data: bytes) -> tuple[bytes, int]:
    """`data` with each base64 string (image, sound) replaced by its hash, and how many there were.

    Base64 has no spaces: one window in each block is looked at, and where it is solid base64 the string around it is
    taken out. Blobs of about a block may be missed; they weigh little. What is found does not depend on what follows
    it, so a conversation that goes on keeps its prefix.
    """
    kept: list[bytes] = []
    done, at, blobs, size = 0, PREFIX_BLOCK_BYTES, 0, len(data)
    while at + _BLOB_WINDOW <= size:
        window = data[at : at + _BLOB_WINDOW]
        if _SPACE in window or _BLOB.match(window) is None:
            at += PREFIX_BLOCK_BYTES
            continue
        start, end = data.rfind(b'"', done, at) + 1, data.find(b'"', at)
        if end < 0:
            end = size
        if start <= 0 or end - start < PREFIX_BLOCK_BYTES or not _is_solid(data, start, end):
            at += PREFIX_BLOCK_BYTES
            continue
        kept.append(data[done:start])
        kept.append(b"%d" % xxh3_64_intdigest(data[start:end]))
        blobs += 1
        done = end
        at = end + PREFIX_BLOCK_BYTES
    if not blobs:
        return data, 0
    kept.append(data[done:])
    return b"".join(kept), blobs


def _is_solid(data: bytes, start: int, end: int) -> bool:
    """Whether the string from `start` to `end` is base64 all through: a `data:` URL or solid from its first byte, and
    solid at three more places. A text that only holds some base64 stays text, as it is tokenised as such."""
    if data[start : start + 5] != b"data:" and _BLOB.match(data, start) is None:
        return False
    third = (end - start) // 3
    return all(_BLOB.match(data, at) is not None for at in (start + third, end - third, end - _BLOB_WINDOW - 4))


def _count_high(sample: bytes) -> int:
    return len(sample) - len(sample.translate(None, _HIGH_BYTES))


def sampled(data: bytes, start: int, stop: int) -> bytes:
    """What stands for all of `data[start:stop]` when its characters are counted: a short text itself, one window from
    the middle, or four windows of a long one."""
    size = stop - start
    if size <= _WINDOW:
        return data[start:stop]
    if size < 8 * _WINDOW:
        middle = start + (size - _WINDOW) // 2
        return data[middle : middle + _WINDOW]
    eighth = size // 8
    first, second, third = start + eighth, start + 3 * eighth, start + 5 * eighth
    last = start + 7 * eighth - _WINDOW
    return (
        data[first : first + _WINDOW]
        + data[second : second + _WINDOW]
        + data[third : third + _WINDOW]
        + data[last : last + _WINDOW]
    )
