"""A copy that stays right whatever the API server does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

from lb.kube import KubeApi, Reflector
from lb.kube.fold import Object
from tests.lb.kube.api_server import PATH, ApiServer, Script, eventually, running


class Copy:
    """What a reflector reports."""

    def __init__(self) -> None:
        self.sets: list[set[str]] = []

    def __call__(self, objects: Sequence[Object]) -> None:
        self.sets.append({item["metadata"]["name"] for item in objects})

    @property
    def names(self) -> set[str] | None:
        return self.sets[-1] if self.sets else None


async def test_first_a_list_then_each_change(api: KubeApi, server: ApiServer) -> None:
    server.put("a")
    copy = Copy()
    reflector = Reflector(api, PATH, copy)
    async with running(reflector.run()):
        await eventually(lambda: copy.names == {"a"})
        server.put("b")
        await eventually(lambda: copy.names == {"a", "b"})
        server.delete("a")
        await eventually(lambda: copy.names == {"b"})
    assert server.kinds() == ["list", "watch"]
    assert (reflector.state.synced, reflector.state.error, reflector.state.failures) == (True, None, 0)


async def test_an_empty_collection_is_told_too(api: KubeApi, server: ApiServer) -> None:
    copy = Copy()
    async with running(Reflector(api, PATH, copy).run()):
        await eventually(lambda: copy.names == set())


async def test_j02_410_on_the_watch_lists_again_and_loses_nothing(api: KubeApi, server: ApiServer) -> None:
    server.put("a")
    copy = Copy()
    server.oldest = 1 << 40  # no version is new enough: each watch is answered with 410
    reflector = Reflector(api, PATH, copy)
    async with running(reflector.run()):
        await eventually(lambda: copy.names == {"a"})
        server.delete("a")
        server.put("b")
        await eventually(lambda: copy.names == {"b"})
        server.oldest = 0
        await eventually(lambda: server.kinds()[-1] == "watch" and reflector.state.error is None)
        server.put("c")
        await eventually(lambda: copy.names == {"b", "c"})
    assert server.kinds()[:4] == ["list", "watch", "list", "watch"]
    assert all(later[0] - earlier[0] >= 1.0 for earlier, later in pairwise(server.calls[1:])), "a hot loop"


async def test_j08_a_watch_that_hangs_is_opened_anew_where_it_stopped(api: KubeApi, server: ApiServer) -> None:
    copy = Copy()
    async with running(Reflector(api, PATH, copy, idle_s=0.3).run()):
        await eventually(lambda: server.kinds() == ["list", "watch"])
        server.silent = True  # the connection stays, and nothing comes over it
        server.put("a")
        await eventually(lambda: server.kinds().count("watch") == 2)
        server.silent = False
        await eventually(lambda: copy.names == {"a"})
    assert server.kinds().count("list") == 1


async def test_j09_what_was_seen_last_stays_while_nothing_answers(api: KubeApi, server: ApiServer) -> None:
    server.put("a")
    copy, noticed = Copy(), []
    reflector = Reflector(api, PATH, copy, idle_s=0.2, noticed=lambda: noticed.append(reflector.state.error))
    async with running(reflector.run()):
        await eventually(lambda: copy.names == {"a"})
        server.silent = True
        server.always = Script(503)
        server.delete("a")
        server.put("b")
        await eventually(lambda: reflector.state.failures >= 2, 6)
        assert copy.sets == [{"a"}]
        assert "503" in str(reflector.state.error)
        server.always, server.silent = None, False
        await eventually(lambda: copy.names == {"b"}, 8)
    assert noticed[-1] is None


async def test_a_watch_that_the_server_ends_goes_on_without_a_list(api: KubeApi, server: ApiServer) -> None:
    copy = Copy()
    async with running(Reflector(api, PATH, copy, watch_s=1.0).run()):
        await eventually(lambda: server.kinds().count("watch") == 2)
        server.put("a")
        await eventually(lambda: copy.names == {"a"})
    assert server.kinds().count("list") == 1


async def test_repeated_and_late_events_change_nothing(api: KubeApi, server: ApiServer) -> None:
    copy = Copy()
    reflector = Reflector(api, PATH, copy)
    async with running(reflector.run()):
        await eventually(lambda: server.kinds() == ["list", "watch"])
        first = server.put("a")
        second = server.put("a", changed=True)
        await eventually(lambda: len(copy.sets) == 2)
        for item in (first, second, first):
            server.raw.append(json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n")
        server.delete("a")
        await eventually(lambda: copy.names == set())
        server.raw.append(json.dumps({"type": "MODIFIED", "object": second}).encode() + b"\n")
        await eventually(lambda: reflector.state.stale_events == 4)
        assert copy.names == set()
    assert server.kinds() == ["list", "watch"]


async def test_an_event_in_pieces_and_several_at_once(api: KubeApi, server: ApiServer) -> None:
    copy = Copy()
    line = json.dumps(
        {"type": "ADDED", "object": {"metadata": {"name": "a", "namespace": "ns", "resourceVersion": "50"}}}
    ).encode()
    async with running(Reflector(api, PATH, copy).run()):
        await eventually(lambda: server.kinds() == ["list", "watch"])
        server.raw += [line[:20]]
        await eventually(lambda: not server.raw)
        server.raw += [line[20:] + b"\n" + line.replace(b'"a"', b'"b"') + b"\n"]
        await eventually(lambda: copy.names == {"a", "b"})


async def test_what_is_no_event_leads_to_a_list(api: KubeApi, server: ApiServer) -> None:
    server.put("a")
    copy = Copy()
    reflector = Reflector(api, PATH, copy)
    async with running(reflector.run()):
        await eventually(lambda: server.kinds() == ["list", "watch"])
        server.raw.append(b'{"type": "NEW", "object": {"metadata": {"name": "a"}}}\n')
        await eventually(lambda: server.kinds() == ["list", "watch", "list", "watch"])
        await eventually(lambda: reflector.state.error is None)
    assert reflector.state.failures == 1
    assert copy.sets == [{"a"}], "nothing that was seen is given up for it"


async def test_a_watch_that_ends_at_once_again_and_again_is_no_hot_loop(api: KubeApi, server: ApiServer) -> None:
    server.put("a")
    server.ends_watches = True
    copy = Copy()
    reflector = Reflector(api, PATH, copy)
    async with running(reflector.run()):
        await eventually(lambda: copy.names == {"a"})
        await eventually(lambda: server.kinds() == ["list", "watch", "list", "watch"])
    assert reflector.state.failures >= 1
    assert all(later[0] - earlier[0] >= 1.0 for earlier, later in pairwise(server.calls[1:]))


async def test_a_mistake_of_ours_does_not_end_the_process(api: KubeApi, server: ApiServer) -> None:
    server.put("a")
    copy, mistakes = Copy(), [ZeroDivisionError("a mistake")]

    def changed(objects: Sequence[Object]) -> None:
        if mistakes:
            raise mistakes.pop()
        copy(objects)

    reflector = Reflector(api, PATH, changed)
    async with running(reflector.run()):
        await eventually(lambda: reflector.state.error is not None)
        assert "ZeroDivisionError: a mistake" in str(reflector.state.error)
        await eventually(lambda: copy.names == {"a"})
    assert server.calls[1][0] - server.calls[0][0] >= 1.0
