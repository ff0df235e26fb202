"""Take personal data out of header fields, both ways, before anybody can log it.

    filters:
      - file: filters/scrub_header.py
        settings: {request: [x-debug-user], response: [x-trace-note], drop: [x-ssn]}

What looks like an e-mail address, a card number or an IBAN becomes `[email]`, `[card]`, `[iban]`.
"""

import re
from dataclasses import dataclass

from sidecar.filter import Filter, Request, Response


@dataclass(frozen=True)
class Settings:
    request: list[str]  # fields that are searched
    response: list[str]
    drop: tuple[str, ...] = ()  # fields that are taken out whole, both ways


# Bounded, so that no value makes them slow: these are not linear-time patterns.
EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


class ScrubHeader(Filter[Settings]):
    def on_request(self, request: Request) -> None:
        self.scrub(request, request, self.settings.request)

    def on_response(self, request: Request, response: Response) -> None:
        self.scrub(request, response, self.settings.response)

    def scrub(self, request: Request, message: Request | Response, names: list[str]) -> None:
        for name in self.settings.drop:
            message.remove_header(name)
        for name in names:
            value = message.header(name)
            if value is None:
                continue
            clean = EMAIL.sub("[email]", value)
            clean = CARD.sub(lambda found: "[card]" if is_card(found[0]) else found[0], clean)
            clean = IBAN.sub("[iban]", clean)
            if clean != value:
                message.set_header(name, clean)
                request.count("values_scrubbed", field=name)


def is_card(text: str) -> bool:
    """Say whether the check digit is right (Luhn), as that of an order number seldom is."""
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
