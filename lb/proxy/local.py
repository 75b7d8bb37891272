"""What the data plane answers without a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.proxy.reply import own_reply
from lb.replica import ReplicaState
from lb.surfaces.models import list_body

if TYPE_CHECKING:
    from lb.proxy.context import ProxyContext
    from lb.proxy.head import Head

_ALLOW = b"allow: GET, HEAD, POST, OPTIONS\r\n"


def local_answer(context: ProxyContext, head: Head) -> bytes:
    """The reply to a request that needs no replica.

    `/health` tells a load balancer in front of this one whether to send work; `/v1/models` lists what all replicas
    serve together, which no single replica knows.
    """
    path = head.path
    close = not head.keep_alive or context.draining
    if head.method == "OPTIONS":
        return own_reply(204, b"", close=close, headers=_ALLOW)
    head_only = head.method == "HEAD"
    if path == "/health":
        replicas = context.balancer.replicas.values()
        ready = not context.draining and any(replica.state is ReplicaState.READY for replica in replicas)
        body = b'{"status":"ok"}' if ready else b'{"status":"no replica is ready"}'
        return own_reply(200 if ready else 503, body, close=close, head_only=head_only)
    return own_reply(
        200,
        list_body(replica.models or () for replica in context.balancer.replicas.values()),
        close=close,
        head_only=head_only,
    )
