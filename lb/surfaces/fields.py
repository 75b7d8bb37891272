"""The one door to msgspec: read the named fields of a JSON body and nothing else of it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from lb.surfaces.long_strings import LEAST_BODY_BYTES, MARK_BYTES, Shortened, shortened

Raw = msgspec.Raw
NOTHING = msgspec.Raw()
"""A field that is not there; false in a condition, as its length is 0."""

Shape = TypeVar("Shape", bound=msgspec.Struct)
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError)
"""What a hostile body can raise: not JSON, wrong types, 100,000 levels deep, broken UTF-8, integers too long."""


class Fields(msgspec.Struct, gc=False):
    """Base of the structs that name a body's fields. `gc=False`: they live for microseconds and hold no cycles."""


class FieldReader(Generic[Shape]):
    """Reads bodies into `shape`, whose fields all have defaults. Big fields are `Raw`: found, but not decoded.

    A body with a field of the wrong type is read field by field: what can be understood is, as the runtimes' own
    parsers are lenient too ("100" for 100); the rest keeps its default.
    """

    __slots__ = ("_fields", "_lenient", "_raws", "_shape", "_strict", "_texts")

    def __init__(self, shape: type[Shape], *, texts: bool = False) -> None:
        """`texts`: the big fields are only weighed (`lb.surfaces.prompt.set_text`), which takes a `Stretch` as well."""
        self._shape = shape
        self._strict = msgspec.json.Decoder(shape)
        self._fields = msgspec.structs.fields(shape)
        self._texts = texts
        self._raws = tuple(field.name for field in self._fields if field.type is msgspec.Raw)
        raw = msgspec.defstruct(
            f"Raw{shape.__name__}",
            [(field.name, msgspec.Raw, NOTHING) for field in self._fields],
            rename={field.name: field.encode_name for field in self._fields},
        )
        self._lenient = msgspec.json.Decoder(raw)

    def read(self, body: bytes | Raw) -> Shape | None:
        """The fields; None for a body that is not a JSON object. Of a long body, `bytes` or, where they are only
        weighed, a `Stretch` may stand for `Raw`."""
        if len(body) >= LEAST_BODY_BYTES and isinstance(body, bytes):
            short = shortened(body)
            if short is not None:
                found = self._read_short(short)
                if found is not None:
                    return found
        try:
            return self._strict.decode(body)
        except _UNREADABLE:
            return self._read_leniently(body)

    def _read_short(self, short: Shortened) -> Shape | None:
        """The fields of a body without its long strings, which are put back; None if that cannot be done."""
        try:
            found = self._strict.decode(short.body)
        except _UNREADABLE:
            return None
        for name in self._raws:
            part: Raw = getattr(found, name)
            if len(part) > MARK_BYTES:
                whole = short.restored(bytes(part))
                if whole is not None:
                    setattr(found, name, whole if self._texts else whole.copy())
        return None if short.left else found

    def _read_leniently(self, body: bytes | Raw) -> Shape | None:
        try:
            raw = self._lenient.decode(body)
        except _UNREADABLE:
            return None
        found: dict[str, Any] = {}
        for field in self._fields:
            value = getattr(raw, field.name)
            if not value:
                continue
            try:
                found[field.name] = msgspec.json.decode(value, type=field.type, strict=False)
            except _UNREADABLE:
                continue
        return self._shape(**found)


class MemberReader:
    """Reads one member, whatever its name, from JSON objects."""

    __slots__ = ("_decoder",)

    def __init__(self, name: str) -> None:
        shape = msgspec.defstruct("Member", [("value", msgspec.Raw, NOTHING)], rename={"value": name}, gc=False)
        self._decoder = msgspec.json.Decoder(shape)

    def read(self, raw: Raw) -> Raw:
        """The member's value, undecoded; NOTHING where there is none or this is no object."""
        try:
            found: Any = self._decoder.decode(raw)
        except _UNREADABLE:
            return NOTHING
        value: Raw = found.value
        return value


_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens")
# Not a class statement: compiled ones lose their annotations.
_counts = msgspec.json.Decoder(msgspec.defstruct("Counts", [(name, int | None, None) for name in _COUNTS], gc=False))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_texts = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_scalar: msgspec.json.Decoder[bool | int | float] = msgspec.json.Decoder(bool | int | float)


def items(raw: Raw) -> list[Raw]:
    """The elements of a JSON array, undecoded; [] for anything else."""
    try:
        return _texts.decode(raw)
    except _UNREADABLE:
        return []


def text(raw: Raw) -> str | None:
    """A JSON string; None for anything else."""
    try:
        return _text.decode(raw)
    except _UNREADABLE:
        return None


def named_models(body: bytes) -> frozenset[str] | None:
    """Every model that some runtime's parser may take this body to ask for; None if it cannot be told.

    For rules on who may use which model. Go's parser (Ollama) takes `Model` and `MODEL` for `model`, so a body that
    names several may mean any of them. None for bodies that this parser refuses and a lenient one may not: NaN,
    UTF-16, a byte order mark.
    """
    try:
        members = _members.decode(body)
    except _UNREADABLE:
        return None
    models = [text(value) for name, value in members.items() if name.lower() == "model"]
    return None if None in models else frozenset(model for model in models if model)


def token_counts(raw: bytes) -> tuple[int | None, int | None, int | None]:
    """`prompt_tokens`, `completion_tokens` and `cached_tokens` of a JSON object; None for what it does not say."""
    try:
        found: Any = _counts.decode(raw)
    except _UNREADABLE:
        return None, None, None
    return found.prompt_tokens, found.completion_tokens, found.cached_tokens


def scalar(raw: Raw) -> float | None:
    """A JSON number or boolean; None for anything else."""
    if not 0 < len(raw) < 32:
        return None
    try:
        return _scalar.decode(raw)
    except _UNREADABLE:
        return None


def first_byte(raw: Raw) -> bytes:
    """Tells the kind of a value: `[`, `{`, a quote, a digit; b"" if there is none."""
    return bytes(memoryview(raw)[:1])


def positive(value: int | None) -> int | None:
    """A usable limit; None for none, for 0 and below (the runtimes' "no limit") and for absurd numbers."""
    return value if value is not None and 0 < value < 1 << 31 else None


def encode(value: object) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)
