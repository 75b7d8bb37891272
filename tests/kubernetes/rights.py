"""What rights a call to the API takes, which calls our client makes, and what the server says of a right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import aiohttp

from lb.kube import api
from tests.deploy.kustomize import Manifest
from tests.kubernetes.cluster import Cluster

_PATH = re.compile(
    r"/apis?/(?:(?P<group>[a-z0-9.-]+\.[a-z0-9.-]+|apps|autoscaling|policy)/)?v[a-z0-9]+"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)
_VERBS = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, order=True)
class Need:
    """One right, as the API server's authorizer is asked for it."""

    verb: str
    group: str
    resource: str
    """With its subresource: `deployments/scale`."""
    namespace: str
    """Empty: all, or none."""
    name: str
    """Empty: the collection."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f' {self.name}' if self.name else ''} in {self.namespace or 'the cluster'}"


def needs_of(method: str, path: str, watched: bool, made: bool) -> Iterator[Need]:
    """`made`: it was answered with 201, so a PATCH has made the object, which takes the right to create it, too."""
    match = _PATH.fullmatch(path)
    assert match is not None, f"{path} is no resource's path"
    group, namespace, resource, name, sub = (
        match[key] or "" for key in ("group", "namespace", "resource", "name", "sub")
    )
    where = (group, f"{resource}/{sub}" if sub else resource, namespace)
    if method == "GET":
        yield Need("watch" if watched else "get" if name else "list", *where, name)
    elif method == "POST":
        yield Need("create", *where, name)
    else:
        yield Need(_VERBS[method], *where, name)
        if made:
            yield Need("create", *where, name)


@dataclass
class Calls:
    """Everything that our client asked for."""

    needs: set[Need]
    forbidden: list[str]
    """Calls that were answered with 403."""


@contextmanager
def recorded() -> Iterator[Calls]:
    """Record every call of our Kubernetes client, whoever makes it; the calls themselves go through."""
    calls = Calls(set(), [])
    send = api._Connection.send

    async def noted(self: Any, method: str, path: str, query: Any, *rest: Any) -> aiohttp.ClientResponse:
        response = await send(self, method, path, query, *rest)
        if response.status == 403:
            calls.forbidden.append(f"{method} {path}: {(await response.text())[:300]}")
        calls.needs |= set(needs_of(method, path, "watch" in (query or {}), response.status == 201))
        return response

    with mock.patch.object(api._Connection, "send", noted):
        yield calls


def allowed(cluster: Cluster, account: str, need: Need) -> bool:
    """What the API server's own authorizer says for a ServiceAccount, `namespace:name`."""
    resource, _, sub = need.resource.partition("/")
    attributes = {
        "verb": need.verb, "group": need.group, "resource": resource, "subresource": sub, "namespace": need.namespace,
        "name": need.name,
    }  # fmt: skip
    review: Manifest = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:{account}", "resourceAttributes": attributes},
    }
    answer = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    granted: bool = answer["status"]["allowed"]
    return granted
