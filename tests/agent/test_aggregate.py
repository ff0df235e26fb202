"""What several workers say of one endpoint, as one."""

from sidecar.agent.aggregate import sum_endpoints
from sidecar.runtime.messages import EndpointStatus


def test_an_endpoint_that_one_worker_has_ejected_is_shown_as_such() -> None:
    well = EndpointStatus("c", "a:1", 1, 1, 2, 1, 10, 0, available=True)
    ill = EndpointStatus("c", "a:1", 1, 0, 1, 1, 5, 5, available=False, ejected="consecutive-5xx")
    for order in ([well], [ill]), ([ill], [well]):
        assert sum_endpoints(order) == [
            EndpointStatus(
                "c", "a:1", 1, 1, 3, 2, 15, 5, available=False, ejected="consecutive-5xx"
            )
        ]
