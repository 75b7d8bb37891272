"""Nodes to settings, with every mistake reported at once, where it is and what would be right."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lb.settings.durations import STRICT_UNITS
from lb.settings.proxy import Section
from lb.yaml_document import DocumentError, Node, Problem

Loc = tuple[str | int, ...]
S = TypeVar("S", bound=Section)

_SECRET = frozenset({"token", "upstream_key", "sha256"})
"""Fields whose values never appear in a message: someone may have written the secret where a reference belongs."""
_USERINFO = re.compile(r"//[^/@\s]*@")
_SHOWN = 60
_ROUNDS = 20
"""Most times that faulty parts are taken out and the rest is checked again; each round finds what the last one hid."""

_TAG = "type"
"""The key by which sections of a union are told apart."""
_SAYINGS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "mapping_type": "must be a mapping of names to values",
    "ip_v4_network": "must be a network such as 10.0.0.0/8",
    "ip_any_network": "must be a network such as 10.0.0.0/8 or fd00::/8",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong beyond one field's type. `loc` is the path in the settings, by the names of the file."""

    loc: Loc
    message: str
    first: Loc | None = None
    """The earlier place that this one repeats; its line goes into the message."""


Check = Callable[[S], Iterable[Finding]]


def decode(model: type[S], root: Node, check: Check[S] | None = None) -> S:
    """Validate a document against `model` and then with `check`. Raises DocumentError with all problems by line."""
    value, problems = _Decoding(model, root).run(check)
    if problems or value is None:
        raise DocumentError(sorted(set(problems), key=lambda problem: (problem.line, problem.path)))
    return value


class _Decoding(Generic[S]):
    def __init__(self, model: type[S], root: Node) -> None:
        self._model = model
        self._root = root.copy()
        if self._root.items is None and self._root.scalar is None:
            self._root.items = {}
        self._problems: list[Problem] = []
        self._removed: set[tuple[int, str | int]] = set()

    def run(self, check: Check[S] | None) -> tuple[S | None, list[Problem]]:
        value: S | None = None
        for _ in range(_ROUNDS):
            try:
                value = self._model.model_validate(
                    self._root.plain(), by_alias=True, by_name=False, context=STRICT_UNITS
                )
                break
            except ValidationError as error:
                if not self._note(error.errors(include_url=False, include_context=True)):
                    break
        if value is not None and check is not None:
            for finding in check(value):
                first = f", first on line {self._problem(finding.first, '').line}" if finding.first else ""
                self._problems.append(self._problem(finding.loc, finding.message + first))
        return value, self._problems

    def _note(self, errors: list[ErrorDetails]) -> bool:
        """Report each error and take the faulty part out, so that the rest can be checked. False: nothing was out."""
        self._problems.extend(self._explain(error) for error in errors if not self._is_aftermath(error))
        # List positions in `loc` count what is left, so nodes are found before any is taken out.
        parts = [self._holder(error) for error in errors]
        self._removed.update((id(holder), key) for holder, key in filter(None, parts))
        removed = [_remove(part) for part in parts]
        return any(removed)

    def _is_aftermath(self, error: ErrorDetails) -> bool:
        """Whether a key is missing only because its faulty value was taken out before."""
        if error["type"] != "missing":
            return False
        trail = self._trail(self._in_file(error["loc"])[:-1])
        holder = self._root
        if trail and trail[-1][0].items is not None:
            holder = trail[-1][0].items[trail[-1][1]]
        return (id(holder), error["loc"][-1]) in self._removed

    def _holder(self, error: ErrorDetails) -> tuple[Node, str | int] | None:
        """The mapping or list that holds the faulty part, and the key of it there."""
        loc = self._in_file(error["loc"])
        trail = self._trail(loc)
        if error["type"] == "missing":
            # What lacks a key goes out whole, except the root.
            trail = trail[: len(loc) - 1]
        return trail[-1] if trail else None

    def _in_file(self, loc: Loc) -> Loc:
        """`loc` without the tags of unions, which pydantic puts between a section and its keys."""
        node, steps = self._root, []
        for place, step in enumerate(loc):
            items = node.items or {}
            if place < len(loc) - 1 and step not in items and _TAG in items and items[_TAG].scalar == step:
                continue
            steps.append(step)
            known = list(items)
            key = known[step] if node.is_list and isinstance(step, int) and step < len(known) else step
            node = items.get(key, Node(node.line))
        return tuple(steps)

    def _trail(self, loc: Loc) -> list[tuple[Node, str | int]]:
        """(holder, key as written) for each step of `loc` that exists in the file."""
        trail: list[tuple[Node, str | int]] = []
        node = self._root
        for step in loc:
            if node.items is None:
                break
            keys = list(node.items)
            if node.is_list:
                if not (isinstance(step, int) and step < len(keys)):
                    break
                key: str | int = keys[step]
            elif step in node.items:
                key = step
            else:
                break
            trail.append((node, key))
            node = node.items[key]
        return trail

    def _problem(self, loc: Loc, message: str, *, show: bool = True) -> Problem:
        loc = self._in_file(loc)
        trail = self._trail(loc)
        keys = [key for _, key in trail] + [step for step in loc[len(trail) :] if step != "[key]"]
        line = self._root.line
        value: str | None = None
        if trail:
            holder, key = trail[-1]
            assert holder.items is not None
            node = holder.items[key]
            line = holder.key_lines.get(key, node.line)
            if show and len(trail) == len(loc) and node.items is None:
                value = "(hidden)" if keys[-1] in _SECRET else shorten(node.scalar)
        message = _USERINFO.sub("//***@", message)
        return Problem(line, dotted(keys), message.removeprefix(f"{value} ") if value else message, value)

    def _explain(self, error: ErrorDetails) -> Problem:
        loc, kind = error["loc"], error["type"]
        context = error.get("ctx") or {}
        if kind == "extra_forbidden":
            return self._problem(loc, self._unknown_key(loc), show=False)
        if kind == "missing":
            meaning = _meaning(self._model, loc)
            return self._problem(loc, "is missing" + (f"; {meaning}" if meaning else ""), show=False)
        if kind == "union_tag_not_found":
            kinds = ", ".join(_tags(_sections_at(self._model, loc)))
            return self._problem((*loc, _TAG), f"is missing; it is one of {kinds}", show=False)
        if kind == "union_tag_invalid":
            words = str(context.get("expected_tags", ""))
            return self._problem((*loc, _TAG), _one_of(words, context.get("tag")))
        given = error.get("input")
        if given is None:
            return self._problem(loc, "has no value; leave the key out to get the default", show=False)
        if isinstance(given, float) and not math.isfinite(given):
            message = "must be a finite number"
        elif kind == "literal_error":
            message = _one_of(str(context.get("expected", "")), given)
        elif kind in ("model_type", "model_attributes_type", "dataclass_type"):
            section = _section_at(self._model, loc)
            known = ", ".join(_keys(section)[:8]) if section else ""
            message = "must be a mapping" + (f" with keys such as {known}" if known else "")
        elif kind == "string_pattern_mismatch":
            message = f"does not match {context.get('pattern')}"
        elif kind == "value_error":
            message = str(context.get("error", error["msg"]))
        else:
            message = _SAYINGS.get(kind) or error["msg"].replace("Input should be", "must be").replace("Input", "it")
        return self._problem(loc, message)

    def _unknown_key(self, loc: Loc) -> str:
        name = str(loc[-1])
        section = _section_at(self._model, loc[:-1])
        known = _keys(section) if section else []
        near = nearest(name, known)
        if near:
            return f"unknown key; did you mean {near!r}?"
        elsewhere = [path for path in _all_paths(self._model) if path.rpartition(".")[2] == name]
        if elsewhere:
            return f"unknown key here; it belongs at {elsewhere[0]}"
        return f"unknown key; the keys here are {', '.join(sorted(known))}" if known else "unknown key"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like this one, or None."""
    folded = {key.lower().replace("-", "_"): key for key in known}
    wanted = name.lower().replace("-", "_")
    for suffix in ("_s", "_seconds", "_bytes", "_ms"):
        if wanted.removesuffix(suffix) in folded:
            return folded[wanted.removesuffix(suffix)]
    match = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None


def dotted(keys: Iterable[str | int]) -> str:
    """`("lb", "backends", 2, "url")` as `lb.backends[2].url`."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{shorten_text(key)}" if text else shorten_text(key)
    return text


def shorten(value: object) -> str:
    """A value as an error shows it: short, on one line, without the password of a URL."""
    return repr(shorten_text(value)) if isinstance(value, str) else shorten_text(str(value))


def shorten_text(text: str) -> str:
    text = _USERINFO.sub("//***@", text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _remove(part: tuple[Node, str | int] | None) -> bool:
    return part is not None and part[0].items is not None and part[0].items.pop(part[1], None) is not None


def _one_of(expected: str, given: object) -> str:
    words = re.findall(r"'([^']*)'", expected)
    near = nearest(given, words) if isinstance(given, str) else None
    return f"must be one of {', '.join(words)}" + (f"; did you mean {near!r}?" if near else "")


def _keys(section: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in section.model_fields.items()]


def _meaning(model: type[BaseModel], loc: Loc) -> str:
    """The first sentence of a field's description."""
    section = _section_at(model, loc[:-1])
    for name, info in section.model_fields.items() if section else ():
        if (info.alias or name) == loc[-1] and info.description:
            return re.split(r"[.;]\s", info.description.rstrip("."))[0]
    return ""


def _section_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The section that a path leads to."""
    return next(iter(_sections_at(model, loc)), None)


def _sections_at(model: type[BaseModel], loc: Loc) -> list[type[BaseModel]]:
    """The sections that a path may lead to: several where their `type` decides and the path does not name it."""
    sections = [model]
    for step in loc:
        if isinstance(step, int):
            continue
        chosen = [one for one in sections if len(sections) > 1 and step in _tags([one])]
        if chosen:
            sections = chosen
            continue
        fields = (sections[0].model_fields if sections else {}).items()
        sections = _sections_in(next((f.annotation for n, f in fields if (f.alias or n) == step), None))
    return sections


def _tags(sections: Iterable[type[BaseModel]]) -> list[str]:
    """The values of `type` by which they are told apart."""
    fields = [one.model_fields[_TAG] for one in sections if _TAG in one.model_fields]
    return [tag for one in fields for tag in typing.get_args(one.annotation) if isinstance(tag, str)]


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside `X`, `X | None`, `X | Y` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [one for argument in typing.get_args(annotation) for one in _sections_in(argument)]


def _all_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        paths.append(path)
        for inner in _sections_in(info.annotation):
            paths.extend(_all_paths(inner, path + "."))
    return paths
