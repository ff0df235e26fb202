"""Let only signed requests in: an HMAC over time, method, target, host and the body's digest.

    filters:
      - file: filters/hmac_signature.py
        settings: {keys_file: /etc/sidecar/hmac-keys.json}    # {"partner-1": "secret", ...}

The caller sends `x-signature: key=partner-1,time=1700000000,mac=<hex>`.  A filter does not see
bodies: where they matter, callers send `content-digest` (RFC 9530), which is signed too, and the app
compares it.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path

from sidecar.filter import Filter, Reply, Request


@dataclass(frozen=True)
class Settings:
    keys_file: str
    max_skew: float = 300.0  # seconds that a signature may be old, or from the future


class HmacSignature(Filter[Settings]):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        keys: dict[str, str] = json.loads(Path(settings.keys_file).read_text())
        self.keys = {name: secret.encode() for name, secret in keys.items()}

    def on_request(self, request: Request) -> Reply | None:
        problem = self.problem(request)
        if problem:
            request.log("signature", problem)
            request.count("signatures_refused", reason=problem)
            return UNSIGNED
        return None

    def problem(self, request: Request) -> str:
        text = request.header("x-signature")
        if text is None:
            return "absent"
        parts = dict(part.strip().partition("=")[::2] for part in text.split(","))
        key = self.keys.get(parts.get("key", ""))
        if key is None:
            return "unknown_key"
        time = parts.get("time", "")
        if not (time.isascii() and time.isdigit() and len(time) < 12):
            return "malformed"
        if abs(int(time) - request.time) > self.settings.max_skew:
            return "too_old"
        digest = request.header("content-digest") or ""
        signed = "\n".join((time, request.method, request.target, request.host, digest))
        mac = hmac.new(key, signed.encode("latin-1"), hashlib.sha256).hexdigest()
        # Not `==`: how long that takes tells how much of it was right.
        is_right = hmac.compare_digest(mac.encode(), parts.get("mac", "").encode("latin-1"))
        if not is_right:
            return "wrong"
        request.set_header("x-signed-by", parts["key"])  # the app may rely on it
        return ""


UNSIGNED = Reply(401, "sign the request with x-signature\n", {"www-authenticate": "Signature"})
