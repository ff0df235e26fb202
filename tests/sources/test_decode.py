"""Data becomes structures; what does not fit is told with its path."""

import math
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import ConfigErrors
from sidecar.model.bootstrap import Process
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Secret
from sidecar.model.listener import OutboundListener
from sidecar.model.match import StringMatch
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from sidecar.sources.yaml_tree import load


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("15s", 15), ("1.5h", 5400), ("5m", 300), ("1d", 86400), (7, 7), (0.5, 0.5)],
)
def test_durations_are_seconds(written: object, seconds: float) -> None:
    assert decode({"drain_timeout": written}, Process).drain_timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "octets"),
    [("9B", 9), ("64KiB", 65536), ("1MiB", 1 << 20), ("1GiB", 1 << 30), (5, 5)],
)
def test_sizes_are_octets(written: object, octets: int) -> None:
    assert decode({"max_head_size": written}, OutboundListener).max_head_size == octets


@pytest.mark.parametrize(
    "text", ["10.0.0.5:80", "db.internal:65535", "[::1]:1", "[2001:db8::7]:443", "unix:/run/a.sock"]
)
def test_addresses_are_kept_as_written(text: str) -> None:
    assert decode(text, Endpoint).address == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.5", "expected host:port"),
        (":80", "expected host:port"),
        ("::1:80", "expected host:port"),
        ("http://app:80", "expected host:port"),
        ("off", "expected host:port"),
        ("app:0", "expected a port from 1 to 65535"),
        ("app:65536", "expected a port from 1 to 65535"),
        ("[:::]:80", "expected an IPv6 address"),
        ("unix:", "expected a path that begins with / after unix:, got ''"),
        ("unix:run/x", "expected a path that begins with / after unix:, got 'run/x'"),
        ("unix:@x", "expected a path that begins with / after unix:, got '@x'"),
        ("unix:/a\0b", "expected a path that begins with / after unix:, got '/a\\x00b'"),
        ("unix:/" + "a" * 107, "expected a path of up to 107 octets after unix:, got 108"),
    ],
)
def test_what_is_no_address_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        decode(text, Endpoint)
    (error,) = caught.value.errors
    assert error.path == "address"
    assert told in error.detail


def test_only_the_operators_address_may_be_off() -> None:
    assert decode({"workload": "web", "admin": "off"}, Snapshot).admin.address == "off"
    with pytest.raises(ConfigErrors, match=r"outbound\[0\].address: expected host:port"):
        decode({"workload": "web", "outbound": [{"address": "off"}]}, Snapshot)


def test_a_bare_value_stands_for_the_short_field() -> None:
    cluster = decode({"name": "a", "endpoints": ["b:1"], "tls": "mutual"}, Cluster)
    assert cluster.endpoints == (Endpoint(address="b:1"),)
    assert cluster.tls == ClusterTls(mode="mutual")
    route = decode({"match": {"headers": {"x": "v2"}}}, Route)
    assert route.match.headers == {"x": StringMatch(exact="v2")}


def test_a_key_left_empty_is_the_default() -> None:
    assert decode({"name": "a", "endpoints": None, "tls": None}, Cluster) == Cluster(name="a")
    assert decode({"timeout": None}, Route).timeout is None


def test_a_number_where_a_text_is_wanted_is_kept_as_written() -> None:
    tree, _ = load(b"workload: {name: 7, version: 1.10}")
    workload = decode(tree, Snapshot).workload
    assert (workload.name, workload.version) == ("7", "1.10")


def test_percentages_may_have_their_sign() -> None:
    tree = {"workload": "web", "telemetry": {"tracing": {"sampling": "0.5%"}}}
    assert decode(tree, Snapshot).telemetry.tracing.sampling == 0.5


LIST = "expected a list (`- ` before each item, or [..])"


@pytest.mark.parametrize(
    ("tree", "path", "told"),
    [
        (
            {"workload": None},
            "workload",
            "expected keys and values (or just its name), got nothing",
        ),
        ({"outbound": {"a": 1}}, "outbound", f"{LIST}, got keys and values"),
        ({"outbound": [7]}, "outbound[0]", "expected keys and values, got the number 7"),
        ({"clusters": "x"}, "clusters", f"{LIST}, got the text 'x'"),
        ({"qqq": 1}, "qqq", "unknown key; expected one of admin, certificates, clusters"),
        ({"outbond": []}, "outbond", "unknown key; did you mean 'outbound'?"),
        ({"certificates": {}}, "certificates.roots", "is required"),
        ({"process": {"workers": 0}}, "process.workers", "expected 1 or more, got 0"),
        ({"process": {"workers": 65}}, "process.workers", "expected 64 or less, got 65"),
        ({"process": {"workers": True}}, "process.workers", "expected a whole number, got true"),
        ({"process": {"workers": 1.5}}, "process.workers", "expected a whole number, got"),
        ({"process": {"drain_timeout": "1h30m"}}, "process.drain_timeout", "expected a duration"),
        ({"process": {"drain_timeout": [1]}}, "process.drain_timeout", "expected a duration"),
        ({"process": {"drain_timeout": math.inf}}, "process.drain_timeout", "a finite number"),
        ({"process": {"state_dir": False}}, "process.state_dir", "expected a text, got false"),
        (
            {"telemetry": {"tracing": {"sampling": "nan%"}}},
            "telemetry.tracing.sampling",
            "expected a finite number",
        ),
        (
            {"telemetry": {"tracing": {"sampling": "x%"}}},
            "telemetry.tracing.sampling",
            "expected a number, got the text 'x%'",
        ),
        (
            {"outbound": [{"routes": [{"match": {"headers": ["x"]}}]}]},
            "outbound[0].routes[0].match.headers",
            "expected keys and values, got a list",
        ),
        (
            {"outbound": [{"routes": [{"retry": {"on": ["rest"]}}]}]},
            "outbound[0].routes[0].retry.on[0]",
            "got the text 'rest'; did you mean 'reset'?",
        ),
        (
            {"clusters": [{"name": "a", "tls": True}]},
            "clusters[0].tls.mode",
            "got true; expected one of mutual, off, simple",
        ),
    ],
)
def test_what_does_not_fit_is_told(tree: dict[str, object], path: str, told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        decode({"workload": "web", **tree}, Snapshot)
    found = {error.path: error.detail for error in caught.value.errors}
    assert told in found[path]


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["workload", "name", "clusters", "endpoints", "tls", "outbound", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(TREES)
def test_any_data_is_decoded_or_refused(tree: object) -> None:
    with suppress(ConfigErrors):
        assert isinstance(decode(tree, Snapshot), Snapshot)


@pytest.mark.parametrize("host", ["999.1.1.1", "10.0.1", "80", "a..b", "-a", "a-", "a" * 64])
def test_what_is_neither_a_name_nor_an_ip_address_is_told(host: str) -> None:
    with pytest.raises(ConfigErrors, match="expected a host name or an IP address"):
        decode({"address": f"{host}:80"}, Endpoint)


@pytest.mark.parametrize(
    "host", ["catalog.shop.svc", "db.internal.", "my_db", "10.example", "10.0.0.1"]
)
def test_names_and_ip_addresses_are_taken(host: str) -> None:
    assert decode({"address": f"{host}:80"}, Endpoint).address == f"{host}:80"


def test_units_never_lead_beyond_what_fits_a_message_to_a_worker() -> None:
    with pytest.raises(ConfigErrors) as caught:
        decode(
            {"idle_timeout": "9" * 400 + "s", "max_head_size": "9" * 5000 + "GiB"},
            OutboundListener,
        )

    assert [error.path for error in caught.value.errors] == ["idle_timeout", "max_head_size"]


def test_milliseconds_are_as_exact_as_seconds_would_be() -> None:
    assert decode({"idle_timeout": "35ms"}, OutboundListener).idle_timeout == 0.035


def test_a_type_that_no_reader_knows_is_a_bug_and_no_error_of_the_user() -> None:
    with pytest.raises(AssertionError, match="no reader"):
        decode({"certificate": "x"}, Secret)
