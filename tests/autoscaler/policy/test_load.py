"""A policy from text: what is accepted, and that every mistake is named at once, with its line."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoscaler.policy.load import load, parse
from lb.yaml_document import DocumentError, Problem

POLICIES = Path(__file__).parents[3] / "deploy" / "policies"


def problems(text: str) -> list[Problem]:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    return caught.value.problems


def lines(text: str) -> list[str]:
    return [problem.text("p.yaml") for problem in problems(text)]


def one(text: str) -> str:
    (line,) = lines(text)
    return line


def test_an_empty_file_is_a_policy_of_defaults() -> None:
    assert parse("").lb.listen == "127.0.0.1:8080"
    assert parse("# nothing yet\n").lb.backends == ()


def test_units_are_read_as_written() -> None:
    policy = parse("lb:\n  timeouts: {head: 1m30s}\n  limits: {body: 64MiB}\n  log: {access: off}\n")
    assert policy.lb.timeouts.head_s == 90
    assert policy.lb.limits.body_bytes == 64 << 20
    assert policy.lb.log.access == "off", "YAML 1.1 reads `off` as false"


def test_anchors_and_merge_keys_work() -> None:
    text = """
lb:
  backends:
    - &common {url: "http://a:1", zone: z1, models: [m]}
    - {<<: *common, url: "http://b:1"}
"""
    first, second = parse(text).lb.backends
    assert (first.zone, second.zone, second.url, second.models) == ("z1", "z1", "http://b:1", ("m",))


@pytest.mark.parametrize("name", sorted(path.name for path in POLICIES.glob("*.yaml")))
def test_shipped_policies_decode(name: str) -> None:
    loaded = load(POLICIES / name)
    lb = loaded.policy.lb
    assert lb.backends or lb.dns or lb.kubernetes or loaded.policy.scaling.pools
    assert loaded.digest == hashlib.sha256((POLICIES / name).read_bytes()).hexdigest()
    assert loaded.directory == POLICIES.absolute()


def test_every_mistake_is_reported_at_once_with_its_line() -> None:
    text = """\
lb:
  listen: 127.0.0.1
  listn: 1
  backends:
    - url: ftp://user:secret@a
    - url: http://a:1
      weigth: 3
    - models: [a]
    - url: http://b:1
    - url: http://b:1/
  limits: {body: 1 potato, headers: 3, idle: 3s}
  timeouts:
    idle: 120
  admin:
    listen: 0.0.0.0:9400
  routing: {strategy: roundrobin, weights: {gpu_hedroom: 1}}
  keys:
    - {name: a b, sha256: zz}
"""
    found = lines(text)
    expected = [
        "p.yaml:2: lb.listen = '127.0.0.1'",
        "p.yaml:3: lb.listn: unknown key; did you mean 'listen'?",
        "p.yaml:5: lb.backends[0].url = 'ftp://***@a'",
        "p.yaml:7: lb.backends[1].weigth: unknown key; did you mean 'weight'?",
        "p.yaml:8: lb.backends[2].url: is missing",
        "p.yaml:10: lb.backends[4].url = 'http://b:1/': this replica is listed twice, first on line 9",
        "p.yaml:11: lb.limits.body = '1 potato': is not a size",
        "p.yaml:11: lb.limits.headers = 3: must be greater than or equal to 10",
        "p.yaml:11: lb.limits.idle: unknown key here; it belongs at lb.timeouts.idle",
        "p.yaml:13: lb.timeouts.idle = 120: has no unit; write it as a duration such as 120s",
        "p.yaml:15: lb.admin.listen = '0.0.0.0:9400': 0.0.0.0 is reachable from other machines",
        "p.yaml:16: lb.routing.strategy = 'roundrobin': must be one of tidegate, round-robin",
        "p.yaml:16: lb.routing.weights.gpu_hedroom = 1: there is no such scorer",
        "p.yaml:18: lb.keys[0].name = 'a b': does not match",
        "p.yaml:18: lb.keys[0].sha256 = (hidden): does not match",
    ]
    assert len(found) == len(expected), "\n".join(found)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start), line
    assert "secret" not in "\n".join(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lb: {health: {ejection: 20s, ejection_max: 10s}}", "lb.health.ejection = '20s': is longer than"),
        ("lb: {limits: {request_line: 64KiB, head: 32KiB}}", "lb.limits.request_line = '64KiB': is more than"),
        ("lb: {routing: {weights: {load: -1}}}", "greater than or equal to 0"),
        ("lb: {retries: {budget_ratio: .nan}}", "lb.retries.budget_ratio = nan: must be a finite number"),
        ("lb: {retries: {attempts: .inf}}", "must be a finite number"),
        ("lb: {retries: {attempts: 2.5}}", "must be a whole number"),
        ("lb: {retry: {}}", "lb.retry: unknown key; did you mean 'retries'?"),
        ("lb: {timeouts: {idle_s: 3}}", "lb.timeouts.idle_s: unknown key; did you mean 'idle'?"),
        ("lb: {timeouts: {idle: 3 parsecs}}", "lb.timeouts.idle = '3 parsecs': is not a duration"),
        ("lb: {timeouts: {idle: -3s}}", "out of range"),
        ("lb: {timeouts: {idle: }}", "lb.timeouts.idle: has no value; leave the key out"),
        ("lb: {admission: {queue: maybe}}", "must be true or false"),
        ("lb: []", "lb: must be a mapping with keys such as listen, backends"),
        ("lb: {backends: {url: x}}", "lb.backends: must be a list"),
        ("lb: {backends: [x]}", "lb.backends[0] = 'x': must be a mapping with keys such as url"),
        ("lb: {zone: 3}", "it belongs at lb.backends.zone"),
        ("lb: {dns: [{name: x}]}", "lb.dns[0]: port is missing"),
        ("lb: {dns: [{name: 'http://x', port: 1}]}", "is not a DNS name"),
        ("lb: {dns: [{name: x, type: SRV, port: 1}]}", "SRV records bring their own port"),
        ("lb: {dns: [{name: x, port: 1, nameservers: [ns1]}]}", "must be an IP or IP:port"),
        ("lb: {dns: [{name: x, port: 1}, {name: x, port: 1}]}", "this name is listed twice, first on line 1"),
        ("lb: {kubernetes: [{}]}", "lb.kubernetes[0]: needs `service`"),
        ("lb: {kubernetes: [{pods: 'a=b;c'}]}", "is not a label selector"),
        ("lb: {kubernetes: [{service: a, runtime: vlm}]}", "is no runtime; did you mean 'vllm'?"),
        ("lb: {kubernetes: [{service: a}, {service: a}]}", "this selection is listed twice"),
        ("lb: {files: [{path: a}, {path: a}]}", "the file is listed twice"),
        ("lb: {backends: [{url: 'http://a:1', runtime: vllmm}]}", "is no runtime; did you mean 'vllm'?"),
        ("lb: {backends: [{url: 'http://a:99999'}]}", "is not a URL"),
        ("lb: {backends: [{url: 'http://a', metrics_url: a}]}", "metrics_url = 'a': does not start with http"),
        ("lb: {listen: '::1:80'}", "put the IPv6 address in brackets"),
        ("lb: {listen: '127.0.0.1:9400'}", "lb.admin.listen"),
        ("lb: {forwarding: {upstream_authorization: replace}}", "needs `upstream_key` beside it"),
        ("lb: {forwarding: {upstream_key: 'env:A'}}", "has an effect only with"),
        ("lb: {forwarding: {trusted_proxies: [nonsense]}}", "trusted_proxies[0] = 'nonsense'"),
        ("lb: {forwarding: {trusted_proxies: [false]}}", "[0] = False: must be a network such as 10.0.0.0/8"),
        ("lb: {forwarding: {trusted_proxies: [10]}}", "trusted_proxies[0] = 10: must be a network such as 10.0.0.0/8"),
        (
            "scaling: {pools: [{name: a, actuator: {command: [x]}}]}",
            ".type: is missing; it is one of dry_run, process",
        ),
        (
            "scaling: {pools: [{name: a, actuator: {type: systemv}}]}",
            "type = 'systemv': must be one of dry_run, process, systemd, exec, webhook, kubernetes; did you mean",
        ),
        (
            "scaling: {pools: [{name: a, actuator: {type: kubernetes, workloads: [{name: x}],\n nods: 1}}]}",
            "p.yaml:2: scaling.pools[0].actuator.nods: unknown key; did you mean 'nodes'?",
        ),
        (
            "scaling: {pools: [{name: a, actuator: {type: kubernetes,\n workloads: [{name: x}], nodes: {name: x}}}]}",
            "p.yaml:2: scaling.pools[0].actuator.nodes.type: is missing; it is one of placeholder, capacity_buffer, ",
        ),
        ("lb: {paths: {allow: ['v1/x']}}", "must be a path such as /v1/predict"),
        ("lb: {paths: {allow: ['/v1/../x']}}", "must be a path such as /v1/predict"),
        ("lb: {routing: {session_header: 'a b'}}", "is not a header name"),
        ("lb: {listen: 1, listen: 2}", "'listen' is written twice, first on line 1"),
        ("? [a]\n: 1", "a key must be text"),
        ("lb: {a: *b}", "the alias *b has no anchor before it"),
        ("lb: {}\n---\nlb: {}", "p.yaml:2: a second document begins here"),
        ("lb: [1", "did not find expected ',' or ']'"),
        ("lb: {listen: \x01}", "control characters are not allowed"),
    ],
)
def test_h06_wrong_values_are_named_with_what_would_be_right(text: str, said: str) -> None:
    assert said in one(text)


def test_h06_duplicate_names_of_keys() -> None:
    digest_a, digest_b = "a" * 64, "b" * 64
    text = f"lb:\n  keys:\n  - {{name: a, sha256: {digest_a}}}\n  - {{name: a, sha256: {digest_b}}}\n"
    assert one(text).startswith("p.yaml:4: lb.keys[1].name = 'a': the name is listed twice, first on line 3")


def test_a_key_for_a_model_that_no_backend_serves() -> None:
    digest = "a" * 64
    text = "lb:\n  backends: [{url: 'http://a:1', models: [%s]}]\n  keys: [{name: t, sha256: %s, models: [llama-8b]}]\n"
    assert "did you mean 'llama-7b'?" in one(text % ("llama-7b", digest))
    parse(text % ("llama-8b", digest))
    assert parse(text % ("", digest)).lb.keys, "backends that are asked for their models may serve it"


def test_a_secret_written_in_place_is_refused_and_not_shown() -> None:
    line = one("lb: {admin: {token: hunter2hunter2}}")
    assert "must be a secret reference, env:NAME or file:NAME" in line
    assert "hunter2" not in line


def test_mistakes_behind_others_are_found_too() -> None:
    """A wrong type in one entry must not hide the wrong address in another."""
    found = lines("lb:\n  backends:\n    - {url: 7}\n    - {url: 'ftp://x'}\n    - {url: 'http://a:1', weight: -1}\n")
    assert [line.split(":")[1] for line in found] == ["3", "4", "5"]


BOMB = "\n".join(
    ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"{c}: &{c} [{', '.join(['*' + p] * 9)}]" for p, c in zip("abcdefghi", "bcdefghij", strict=True)]
)


def test_h07_yaml_bomb_is_refused_at_once() -> None:
    taken_s = []
    for _ in range(5):
        began = time.process_time()
        assert "counting what aliases expand to" in one(BOMB)
        taken_s.append(time.process_time() - began)
    # 100 ms is the bar on an idle core; the best of five does not count what neighbours do to the caches.
    assert min(taken_s) < 0.1


def test_h07_yaml_bomb_takes_little_memory() -> None:
    code = (
        "import resource, sys\n"
        "from autoscaler.policy.load import parse\n"
        "from lb.yaml_document import DocumentError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: parse(sys.stdin.read())\n"
        "except DocumentError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=BOMB, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 50 << 20
    assert resource.RUSAGE_SELF == 0


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch /tmp/pwned']",
        "!!python/object:os.system {}",
        "a: !!python/name:os.system",
        "a: !include /etc/passwd",
        "a: !!binary aGk=",
        "!!set {a}",
    ],
)
def test_h08_tags_are_refused(text: str) -> None:
    assert any("is not allowed; write plain values" in line for line in lines(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lb: {retries: {attempts: " + "9" * 1_000_000 + "}}", "a number of 1000000 characters"),
        ("lb: {retries: {attempts: 1e" + "9" * 100 + "}}", "a number of 102 characters"),
        ("a: " + "x" * (10 << 20), "is larger than 1024 KiB"),
        ("[" * 10_000, "nested more than 50 deep"),
        ("\n".join("  " * depth + "a:" for depth in range(600)), "nested more than 50 deep"),
        ("- a\n" * 60_000, "more than 50000 values"),
    ],
    ids=["digits", "exponent", "10MB", "deep-flow", "deep-block", "many"],
)
def test_h09_oversized_documents_are_refused(text: str, said: str) -> None:
    began = time.process_time()
    assert any(said in line for line in lines(text))
    assert time.process_time() - began < 1


def test_h09_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    with file.open("wb") as out:
        out.truncate(10 << 30)  # sparse: reading it all would take 10 GB of memory
    with pytest.raises(DocumentError, match="is larger than 1024 KiB"):
        load(file)


def test_h10_patterns_match_in_linear_time() -> None:
    """No field of a policy is a pattern; our own are matched by an engine without backtracking or with none to do."""
    hostile = "a" * 200_000 + "!"
    began = time.process_time()
    text = f"lb:\n  keys: [{{name: '{hostile}', sha256: '{hostile}'}}]\n  paths: {{allow: ['/{hostile}//']}}\n"
    assert len(lines(text)) == 3
    assert time.process_time() - began < 0.5


def test_missing_and_unreadable_files_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        load(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"lb:\n  listen: \xe9\n")
    with pytest.raises(DocumentError) as caught:
        load(latin)
    assert caught.value.problems == [Problem(2, "", "is not UTF-8 text")]


def test_long_values_are_shortened() -> None:
    line = one("lb: {listen: '" + "x" * 5000 + "'}")
    assert len(line) < 6000
    assert "…" in line
