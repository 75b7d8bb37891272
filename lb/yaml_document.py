"""The only door to YAML: text from people and programs, read into nodes that know their line.

Built on the parser's events and not on its composer, so that every cap holds *while* reading: a document that would
expand to gigabytes is refused after a few kilobytes of work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

MAX_BYTES = 1 << 20
"""Largest file read. A policy for 200 replicas is about 30 KB."""
MAX_NODES = 50_000
"""Most values in a document, each alias counted with all that it stands for (the billion-laughs cap)."""
MAX_DEPTH = 50
"""Deepest nesting. The schema needs six levels."""
MAX_NUMBER_CHARACTERS = 32
"""Longest number. Reading decimal digits takes time quadratic in their count."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The core schema of YAML 1.2. YAML 1.1 reads `off` as false and `12:30` as 750, which nobody who writes a policy means.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file, in the words an operator needs."""

    line: int
    """1-based; 0 when the whole file is meant."""
    path: str
    """Dotted path of the field, or empty."""
    message: str
    value: str | None = None
    """The offending value, shortened; None where there is none or where it must not be shown."""

    def text(self, file: str) -> str:
        """`policy.yaml:12: lb.limits.body = "1 potato": write 65536, 64KiB or 16MiB`"""
        place = f"{file}:{self.line}" if self.line else file
        subject = self.path + (f" = {self.value}" if self.value is not None else "")
        line = f"{place}: {subject}: {self.message}" if subject else f"{place}: {self.message}"
        # A name in the file must not break the line or drive the terminal.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class DocumentError(Exception):
    """A file that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems[:3]))
        self.problems = problems


@dataclass(slots=True)
class Node:
    """A value and the line it is written on.

    `items` of a mapping are keyed by name, those of a list by their index as written, so that an index still names the
    same line after a neighbour was taken out.
    """

    line: int
    scalar: Scalar = None
    items: dict[str | int, Node] | None = None
    is_list: bool = False
    size: int = 1
    key_lines: dict[str | int, int] = field(default_factory=dict)

    def plain(self) -> object:
        """The value without lines: dict, list or scalar."""
        if self.items is None:
            return self.scalar
        if self.is_list:
            return [node.plain() for node in self.items.values()]
        return {key: node.plain() for key, node in self.items.items()}

    def copy(self) -> Node:
        """What may be taken apart without harm to this. Scalars are never changed, so they are shared."""
        if self.items is None:
            return self
        items = {key: node if node.items is None else node.copy() for key, node in self.items.items()}
        return Node(self.line, self.scalar, items, self.is_list, self.size, dict(self.key_lines))


def read_file(path: Path) -> str:
    """A file's text by one open, so that it is one version even while a symlink is swapped.

    Raises DocumentError when it is missing, unreadable, too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError([Problem(0, "", f"cannot be read: {error.strerror or error}")]) from None
    if len(data) > MAX_BYTES:
        raise DocumentError([Problem(0, "", f"is larger than {MAX_BYTES // 1024} KiB, the most that is read")])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DocumentError([Problem(line, "", "is not UTF-8 text")]) from None


def read_document(text: str) -> Node:
    """Parse one YAML (or JSON) document. Raises DocumentError with every problem found."""
    if len(text) > MAX_BYTES:
        raise DocumentError([Problem(0, "", f"is larger than {MAX_BYTES // 1024} KiB, the most that is read")])
    reader = _Reader()
    root: Node | None = None
    try:
        root = reader.read(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
        reader.problems.append(Problem(mark.line + 1 if mark else 0, "", said))
    except _TooMuch:
        pass
    except yaml.YAMLError as error:
        reader.problems.append(Problem(0, "", str(error).partition("\n")[0]))
    if reader.problems or root is None:
        raise DocumentError(reader.problems)
    return root


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


class _TooMuch(Exception):  # noqa: N818  # it ends the reading, the problem itself is already noted
    """A cap was passed: the rest of the file is not worth the time."""


class _Reader:
    """Builds nodes from events. Problems that do not prevent reading on are collected."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def read(self, events: Iterator[yaml.Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._problem(event, "a second document begins here; a file holds one")
                    break
                root = self._node(next(events), events, 1)
        return root if root is not None else Node(1)

    def _problem(self, event: yaml.Event, message: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(Problem(_line(event), "", message))

    def _count(self, event: yaml.Event, size: int) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            self._problem(event, f"more than {MAX_NODES} values, counting what aliases expand to")
            raise _TooMuch

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        self._count(event, 1)
        if depth > MAX_DEPTH:
            self._problem(event, f"nested more than {MAX_DEPTH} deep")
            raise _TooMuch
        if event.tag is not None and event.tag != "!":
            self._problem(event, f"the tag {event.tag[:60]!r} is not allowed; write plain values")
        if isinstance(event, yaml.ScalarEvent):
            node = Node(line, self._scalar(event) if event.implicit[0] else event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(Node(line, items={}, is_list=True), events, depth)
        else:
            node = self._mapping(Node(line, items={}), events, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        anchor = event.anchor or ""
        target = self._anchors.get(anchor)
        if target is None:
            self._problem(event, f"the alias *{anchor[:60]} has no anchor before it")
            return Node(_line(event))
        self._count(event, target.size)
        return target.copy()

    def _list(self, node: Node, events: Iterator[yaml.Event], depth: int) -> Node:
        assert node.items is not None
        for index, event in enumerate(iter(lambda: next(events), None)):
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item = self._node(event, events, depth + 1)
            node.items[index] = item
            node.size += item.size
        return node

    def _mapping(self, node: Node, events: Iterator[yaml.Event], depth: int) -> Node:
        assert node.items is not None
        merged: list[Node] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            node.size += key.size + value.size
            name = event.value if isinstance(event, yaml.ScalarEvent) else None
            if name is None:
                self._problem(event, "a key must be text")
            elif name == "<<":
                merged.extend(value.items.values() if value.is_list and value.items else [value])
            elif name in node.items:
                self._problem(event, f"{name[:60]!r} is written twice, first on line {node.key_lines[name]}")
            else:
                node.items[name] = value
                node.key_lines[name] = key.line
        for source in merged:
            self._merge(node, source)
        return node

    def _merge(self, node: Node, source: Node) -> None:
        """`<<: *defaults`: what the mapping does not say itself."""
        if source.items is None or source.is_list:
            self.problems.append(Problem(source.line, "", "`<<` needs a mapping, or a list of mappings"))
            return
        assert node.items is not None
        for key, value in source.items.items():
            if key not in node.items:
                node.items[key] = value
                node.key_lines[key] = source.key_lines.get(key, source.line)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        text: str = event.value
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _SPECIAL_FLOAT.match(text):
            return float(text.replace(".", ""))
        number = _INT.match(text) or _FLOAT.match(text)
        if number and len(text) > MAX_NUMBER_CHARACTERS:
            self._problem(event, f"a number of {len(text)} characters; at most {MAX_NUMBER_CHARACTERS} are read")
            return 0
        if number:
            return int(text) if _INT.match(text) else float(text)
        return text
