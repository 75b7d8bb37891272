import json

from lb.surfaces.models import list_body, model_body, served

REPLICAS = [("llama", "org/qwen"), ("llama",), (), ("a-first",)]


def test_the_list_is_the_union_sorted() -> None:
    assert served(REPLICAS) == ("a-first", "llama", "org/qwen")
    document = json.loads(list_body(REPLICAS, created=5))
    assert document["object"] == "list"
    assert [entry["id"] for entry in document["data"]] == ["a-first", "llama", "org/qwen"]
    assert document["data"][0] == {"id": "a-first", "object": "model", "created": 5, "owned_by": "tidegate"}


def test_no_replica_no_model() -> None:
    assert json.loads(list_body([]))["data"] == []


def test_one_model() -> None:
    assert json.loads(model_body(REPLICAS, "org/qwen") or b"")["id"] == "org/qwen"
    assert model_body(REPLICAS, "org") is None
