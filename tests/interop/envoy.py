"""Configuration for an Envoy that stands where one of our sidecars could."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One listener and the one place it forwards to."""

    port: int
    """Where it listens on loopback."""

    endpoint: int
    """Where it dials on loopback."""

    http2: bool
    """Speak HTTP/2 upstream."""


@dataclass(frozen=True)
class Security:
    """mTLS on one side."""

    material: Path
    """Directory with certificate.pem, key.pem and roots.pem."""

    peer: str
    """SPIFFE ID that the other end must have."""


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _socket(security: Security | None, context: str, **more: Any) -> Json:
    """Return `transport_socket`, or nothing for plaintext."""
    if security is None:
        return {}
    files = {part: {"filename": f"{security.material}/{part}.pem"} for part in _PARTS}
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _type(f"transport_sockets.tls.v3.{context}"),
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [
                        {"certificate_chain": files["certificate"], "private_key": files["key"]}
                    ],
                    "validation_context": {
                        "trusted_ca": files["roots"],
                        "match_typed_subject_alt_names": [
                            {"san_type": "URI", "matcher": {"exact": security.peer}}
                        ],
                    },
                },
                **more,
            },
        }
    }


_PARTS = ("certificate", "key", "roots")
# Extended CONNECT (RFC 8441) both ways, and no more patience for streams than for the test.
_HTTP2: Json = {"allow_connect": True, "max_concurrent_streams": 1000}


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(line: Line, near: Security | None) -> Json:
    manager = {
        "@type": _type(
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
        ),
        "stat_prefix": "x",
        "http_protocol_options": {"enable_trailers": True},
        "http2_protocol_options": _HTTP2,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "proxy_100_continue": True,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": str(line.port), "timeout": "0s"},
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _type("filters.http.router.v3.Router")},
            }
        ],
    }
    chain: Json = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ],
        **_socket(near, "DownstreamTlsContext", require_client_certificate=True),
    }
    return {"address": _address(line.port), "filter_chains": [chain]}


def _cluster(line: Line, far: Security | None) -> Json:
    http2 = {"http2_protocol_options": _HTTP2}
    http1 = {"http_protocol_options": {"enable_trailers": True}}
    over = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
    return {
        "name": str(line.port),
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [over]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _type("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": http2 if line.http2 else http1,
            }
        },
        "load_assignment": {
            "cluster_name": str(line.port),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(line.endpoint)}}]}],
        },
        **_socket(far, "UpstreamTlsContext"),
    }


def config(lines: Sequence[Line], near: Security | None, far: Security | None) -> str:
    """Return what Envoy reads: `near` secures its listeners, `far` what it dials."""
    return json.dumps(
        {
            "static_resources": {
                "listeners": [_listener(line, near) for line in lines],
                "clusters": [_cluster(line, far) for line in lines],
            }
        }
    )
