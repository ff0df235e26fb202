"""The command line: what can be asked of a sidecar, and of its files."""

import json
import sys
import urllib.error
import urllib.request
from typing import Any, NoReturn

import click

from sidecar import __version__
from sidecar.cli.run import explain, run as run_agent
from sidecar.errors import ConfigErrors, OperationError, SidecarError

ADMIN = "127.0.0.1:15000"


class _Group(click.Group):
    """Turns our errors into a sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SidecarError as error:
            sys.exit(explain(error))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sidecar")
def commands() -> None:
    """A service mesh proxy for machines that are not in Kubernetes.

    It runs beside a service: inbound it takes mutual TLS and checks who calls; outbound it routes,
    balances, retries and secures.
    """


@commands.command()
@click.argument("config", type=click.Path())
def run(config: str) -> None:
    """Run the sidecar that CONFIG describes, until SIGTERM or Ctrl-C.

    CONFIG and the certificate files are watched: a change is applied without dropping traffic, and a
    bad one is refused while the running configuration stays. SIGHUP does the same at once and opens
    log files again.
    """
    run_agent(config)


@commands.command()
@click.argument("config", type=click.Path())
@click.option("--load", is_flag=True, help="Run the code of filters too, as a worker would.")
def check(config: str, load: bool) -> None:
    """Say whether CONFIG is good, or everything that is wrong with it.

    Filters in Python are looked at without running them, unless --load is given.
    """
    from sidecar.agent.config import key_material  # noqa: PLC0415 - only this command needs it
    from sidecar.compiler.snapshot import check as check_snapshot  # noqa: PLC0415
    from sidecar.sources.file import FileSource  # noqa: PLC0415

    source = FileSource(config)
    try:
        snapshot = source.load()
        check_snapshot(snapshot, key_material(snapshot), runs_filters=load)
    except ConfigErrors as errors:
        for error in source.locate(errors).errors:
            click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(
        f"{config}: good: {len(snapshot.inbound)} inbound and {len(snapshot.outbound)} outbound"
        f" listeners, {len(snapshot.clusters)} clusters"
    )


@commands.command()
def schema() -> None:
    """Print the JSON Schema of the config file, for editors."""
    from sidecar.sources.schema import json_schema  # noqa: PLC0415

    click.echo(json.dumps(json_schema(), indent=2))


@commands.command()
@click.option("--admin", default=ADMIN, show_default=True, help="Admin interface to ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was answered, as JSON.")
def status(admin: str, as_json: bool) -> None:
    """Show what a running sidecar does."""
    info = _ask(admin, "/server_info")
    endpoints = _ask(admin, "/clusters?format=json")
    if as_json:
        click.echo(json.dumps({"server_info": info, "clusters": endpoints}, indent=2))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    console.print(
        f"{info['state']}: plan {info['version']}, release {info['release']}, pid {info['pid']},"
        f" up {info['uptime_seconds']} s, from {info['source']}"
    )
    if info["last_error"]:
        console.print(f"last reload refused: {info['last_error']}", style="red", markup=False)
    table = Table(
        "cluster",
        "endpoint",
        "available",
        "health",
        "active",
        "connections",
        "requests",
        "failures",
        "last health failure",
    )
    for row in endpoints:
        table.add_row(
            row["cluster"], row["address"], "yes" if row["available"] else "no",
            row["health"] or "-",
            *(str(row[k]) for k in ("active", "connections", "requests", "failures")),
            escape(row["last_failure"] or "-"),
        )  # fmt: skip
    console.print(table)


@commands.command()
@click.option("--admin", default=ADMIN, show_default=True, help="Admin interface to ask.")
def drain(admin: str) -> None:
    """Have a running sidecar finish what is under way, and exit."""
    click.echo(_post(admin, "/drain"))


@commands.group()
def fault() -> None:
    """Make requests late or fail, for a while, in a running sidecar."""


@fault.command("add")
@click.argument("route")
@click.option("--admin", default=ADMIN, show_default=True, help="Admin interface to ask.")
@click.option("--delay", help="Seconds that requests wait: 250ms, 2s.")
@click.option("--abort", type=int, help="Status that they are answered with.")
@click.option("--reset", is_flag=True, help="End their connections without an answer.")
@click.option("--black-hole", is_flag=True, help="Let them hang without an answer.")
@click.option("--throughput", help="Octets a second of their responses: 10KiB.")
@click.option("--percent", default="100%", show_default=True, help="Share of the requests: 0.01%.")
@click.option("--for", "ttl", default="10m", show_default=True, help="When it ends by itself.")
@click.option("--header", nargs=2, multiple=True, help="Name and value that they must have.")
def fault_add(
    route: str, admin: str, delay: str | None, abort: int | None, reset: bool, black_hole: bool,
    throughput: str | None, percent: str, ttl: str, header: tuple[tuple[str, str], ...],
) -> None:  # fmt: skip
    """Begin a fault on the route called ROUTE."""
    what: dict[str, Any] = {"match": {"headers": dict(header)}}
    if delay is not None:
        what["delay"] = {"fixed": delay, "percent": percent}
    if abort is not None or reset or black_hole:
        how = {"reset": reset, "black_hole": black_hole}
        what["abort"] = {"status": abort or 503, **how, "percent": percent}
    if throughput is not None:
        # The decoder takes a text for a size with a unit only.
        rate = int(throughput) if throughput.isdecimal() else throughput
        what["throughput"] = {"rate": rate, "percent": percent}
    body = json.dumps({"route": route, "ttl": ttl, "fault": what}).encode()
    click.echo(_post(admin, "/faults/add", body))


@fault.command("list")
@click.option("--admin", default=ADMIN, show_default=True, help="Admin interface to ask.")
def fault_list(admin: str) -> None:
    """Print the faults that were added and are under way, as JSON."""
    click.echo(json.dumps(_ask(admin, "/faults"), indent=2))


@fault.command("remove")
@click.argument("number", type=int)
@click.option("--admin", default=ADMIN, show_default=True, help="Admin interface to ask.")
def fault_remove(number: int, admin: str) -> None:
    """End the fault of this NUMBER."""
    click.echo(_post(admin, f"/faults/remove?id={number}"))


@commands.command()
@click.option("--check", "check_it", is_flag=True, help="Send 500 requests, verify, exit 0 or 1.")
def demo(check_it: bool) -> None:
    """Run two workloads with a sidecar each on this machine, and mutual TLS between them."""
    from sidecar.cli.demo import run_demo  # noqa: PLC0415

    sys.exit(run_demo(check=check_it))


@commands.command("hash-key")
@click.argument("name")
@click.option("--password", "is_password", is_flag=True, help="Ask for a password; draw no key.")
def hash_key(name: str, is_password: bool) -> None:
    """Print the line of a new API key, or of a password, for the file of `api_keys` or `basic_auth`.

    A key is drawn and shown once, on standard error; only the line with its hash is to be kept. A
    password is asked for, or read from standard input if that is no terminal.
    """
    from sidecar.identity import hashed  # noqa: PLC0415

    if not hashed.is_name(name):
        raise OperationError("bad-name", f"expected letters, digits and ._@+-, got {name!r}")
    if not is_password:
        key = hashed.new_key()
        click.echo(f"key of {name}, shown this once: {key}", err=True)
        click.echo(hashed.key_line(name, key.encode()))
        return
    if sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    password = str(text).encode()
    if not 0 < len(password) <= hashed.MAX_PASSWORD:
        detail = f"expected 1 to {hashed.MAX_PASSWORD} octets, got {len(password)}"
        raise OperationError("bad-password", detail)
    click.echo(hashed.password_line(name, password))


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(f"sidecar {__version__} (Python {sys.version.split()[0]})")


def _ask(admin: str, path: str) -> Any:
    return json.loads(_open(urllib.request.Request(f"http://{admin}{path}")))


def _post(admin: str, path: str, body: bytes = b"") -> str:
    url = f"http://{admin}{path}"
    return _open(urllib.request.Request(url, data=body, method="POST")).strip()


def _open(request: urllib.request.Request) -> str:
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - http, written above
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        with error:
            click.echo(f"sidecar: {error.read().decode().strip()}", err=True)
        sys.exit(1)
    except (urllib.error.URLError, OSError) as error:
        _give_up(request.host, getattr(error, "reason", error))


def _give_up(admin: str, reason: object) -> NoReturn:
    click.echo(
        f"sidecar: no sidecar answers on {admin} ({reason}); is it running, and is `admin` that"
        " address in its config?",
        err=True,
    )
    sys.exit(1)
