"""Whether one more retry fits the budget: a share of what is under way, with a small floor."""


def may_retry(retries: int, requests: int, floor: int, share: float) -> bool:
    """Return True if a retry may begin while `retries` of `requests` under way are retries.

    `floor` retries are always allowed; beyond it at most `share` (0.2 is 20 %) of the requests
    under way (Envoy: RetryBudget).
    """
    return retries < floor or retries < requests * share
