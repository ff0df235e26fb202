"""A small DNS server on loopback that says what a test wants, and notes what it was asked."""

import contextlib
import socket
import threading
from typing import Final, Self, final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT: Final = "silent"  # an answer that never comes


@final
class NameServer:
    """Answers by `records`: (name, type) to (ttl, texts), to the name of an rcode, or to SILENT.

    A name that is not there does not exist; one that has other types only has none of this one.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]] | str] = {}
        self.denial_ttl = 7
        self.asked: list[tuple[str, str]] = []
        self._socket: Final = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: Final = int(self._socket.getsockname()[1])
        self.address: Final = f"127.0.0.1:{self.port}"
        self._thread: Final = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def say(self, name: str, kind: str, *texts: str, ttl: int = 60) -> None:
        """Have `name` this, from now on."""
        self.records[name, kind] = (ttl, list(texts))

    def count(self, name: str, kind: str) -> int:
        return self.asked.count((name, kind))

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            with contextlib.suppress(dns.exception.DNSException):
                answer = self._answer(dns.message.from_wire(data))
                if answer is not None:
                    self._socket.sendto(answer.to_wire(), peer)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        owner = question.name
        alias = self.records.get((name, "CNAME"))
        if isinstance(alias, tuple):
            answer.answer.append(dns.rrset.from_text(owner, alias[0], "IN", "CNAME", *alias[1]))
            owner = dns.name.from_text(alias[1][0])
            name = alias[1][0].rstrip(".")
        found = self.records.get((name, kind))
        if found == SILENT:
            return None
        if isinstance(found, str):
            answer.set_rcode(dns.rcode.from_text(found))
        elif found is not None:
            ttl, texts = found
            answer.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, *texts))
        else:
            if not any(known == name for known, _ in self.records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            text = f"ns.test. root.test. 1 60 60 60 {self.denial_ttl}"
            answer.authority.append(dns.rrset.from_text("test.", 3600, "IN", "SOA", text))
        return answer
