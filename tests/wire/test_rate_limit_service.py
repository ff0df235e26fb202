"""ShouldRateLimit as Envoy's own protobufs have it."""

from typing import Any

import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, strategies as st

from sidecar.wire.protobuf import MalformedError
from sidecar.wire.rate_limit_service import (
    UNITS,
    Limit,
    Verdict,
    decode_response,
    encode_request,
)
from tests.wire.envoy_messages import OCTETS, TEXT, UINT32, check_damaged


@given(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_a_question_is_one_descriptor(domain: str, entries: list[tuple[str, str]]) -> None:
    octets = encode_request(domain.encode(), [(k.encode(), v.encode()) for k, v in entries])
    seen = RateLimitRequest.FromString(octets)
    assert (seen.domain, seen.hits_addend) == (domain, 0)
    (descriptor,) = seen.descriptors
    assert [(e.key, e.value) for e in descriptor.entries] == entries


FIELDS = st.lists(
    st.builds(HeaderValue, key=TEXT, value=TEXT)
    | st.builds(HeaderValue, key=TEXT, raw_value=OCTETS),
    max_size=3,
)
RESPONSES = st.builds(
    RateLimitResponse,
    overall_code=st.sampled_from([1, 2]),
    statuses=st.lists(
        st.builds(
            RateLimitResponse.DescriptorStatus,
            code=st.integers(0, 2),
            current_limit=st.none()
            | st.builds(
                RateLimitResponse.RateLimit,
                name=TEXT,
                requests_per_unit=UINT32,
                unit=st.integers(0, 7),
            ),
            limit_remaining=UINT32,
            duration_until_reset=st.none() | st.builds(Duration, seconds=st.integers(0, 1 << 31)),
        ),
        max_size=3,
    ),
    response_headers_to_add=FIELDS,
    request_headers_to_add=FIELDS,
    raw_body=OCTETS,
)


def pairs(fields: Any) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((f.key.encode(), f.raw_value or f.value.encode()) for f in fields)


def expected(response: Any) -> Verdict:
    """Return what Envoy's message says, in our form."""
    return Verdict(
        response.overall_code,
        tuple(
            Limit(
                s.current_limit.requests_per_unit,
                UNITS[s.current_limit.unit] if 0 <= s.current_limit.unit < len(UNITS) else 0,
                s.limit_remaining,
                s.duration_until_reset.seconds & 0xFFFFFFFF,
            )
            for s in response.statuses
            if s.HasField("current_limit")
        ),
        pairs(response.response_headers_to_add),
        pairs(response.request_headers_to_add),
        response.raw_body,
    )


@given(RESPONSES)
def test_an_answer_says_what_envoy_would_read(response: Any) -> None:
    assert decode_response(response.SerializeToString()) == expected(response)


@given(st.data(), RESPONSES)
def test_what_is_damaged_is_refused_or_read_as_envoy_would(data: Any, response: Any) -> None:
    check_damaged(data, response, decode_response, expected)


@pytest.mark.parametrize("octets", [b"", b"\x08\x03", b"\x12"])
def test_what_decides_nothing_is_refused(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_response(octets)
