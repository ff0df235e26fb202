"""Give every visitor a variant, and remember it in a cookie.

    filters:
      - file: filters/ab_cookie.py
        settings: {variants: {control: 90, new-basket: 10}}

The app is told by the field `x-variant`; routes can match the cookie from the second request on.
"""

import random
from dataclasses import dataclass, field

from sidecar.filter import Filter, Request, Response


@dataclass(frozen=True)
class Settings:
    variants: dict[str, float] = field(default_factory=lambda: {"a": 1, "b": 1})  # with weights
    cookie: str = "variant"
    max_age: int = 30 * 24 * 3600  # seconds

    def __post_init__(self) -> None:
        if not self.variants or min(self.variants.values()) < 0 or not sum(self.variants.values()):
            raise ValueError("expected variants with weights, at least one above 0")


class AbCookie(Filter[Settings]):
    def on_request(self, request: Request) -> None:
        variant = request.cookie(self.settings.cookie)
        if variant not in self.settings.variants:  # none yet, an old one, or somebody's invention
            names, weights = zip(*self.settings.variants.items(), strict=True)
            variant = request.state["new"] = random.choices(names, weights)[0]  # noqa: S311
            request.count("variants_assigned", variant=variant)
        assert variant is not None
        request.set_header("x-variant", variant)
        request.log("variant", variant)

    def on_response(self, request: Request, response: Response) -> None:
        if "new" in request.state:
            name, age = self.settings.cookie, self.settings.max_age
            value = f"{name}={request.state['new']}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax"
            response.add_header("set-cookie", value)
