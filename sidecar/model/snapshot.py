"""The whole configuration at one version."""

from sidecar.model.base import Model
from sidecar.model.bootstrap import Admin, Process
from sidecar.model.cluster import Cluster
from sidecar.model.identity import Certificates, Workload
from sidecar.model.listener import InboundListener, OutboundListener
from sidecar.model.overload import Overload
from sidecar.model.store import Store
from sidecar.model.telemetry import Telemetry


class Snapshot(Model, frozen=True, kw_only=True):
    """Everything one sidecar does; the top level of the config file."""

    workload: Workload
    """Who runs beside this sidecar; a bare name is enough."""

    inbound: tuple[InboundListener, ...] = ()
    """Listeners for traffic to the workload."""

    outbound: tuple[OutboundListener, ...] = ()
    """Listeners for traffic from the workload."""

    clusters: tuple[Cluster, ...] = ()
    """Named sets of endpoints that routes send to."""

    stores: tuple[Store, ...] = ()
    """Where quota is kept that several sidecars share."""

    certificates: Certificates | None = None
    """Key material; needed by inbound listeners with mTLS and by clusters with `tls: mutual`."""

    admin: Admin = Admin()
    """The operator's interface."""

    telemetry: Telemetry = Telemetry()
    """Metrics, access log, trace context."""

    overload: Overload = Overload()
    """When a worker has too much, and does less."""

    process: Process = Process()
    """Workers, state directory, drain."""
