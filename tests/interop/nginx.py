"""An nginx, before us or behind us."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.interop.peer import need, running

NGINX = """\
daemon off;
{user}
pid {room}/nginx.pid;
error_log {room}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {room}/body; proxy_temp_path {room}/proxy; fastcgi_temp_path {room}/fcgi;
  uwsgi_temp_path {room}/uwsgi; scgi_temp_path {room}/scgi;
  keepalive_requests 100000;
  {servers}
}}
"""


@dataclass(frozen=True)
class Server:
    """One `server` block of an nginx."""

    port: int
    listen: str
    """What stands behind the port."""

    more: str


def nginx(stack: ExitStack, room: Path, *servers: Server) -> None:
    """Run nginx until `stack` is closed."""
    blocks = [f"server {{ listen 127.0.0.1:{s.port} {s.listen}; {s.more} }}" for s in servers]
    config = room / "nginx.conf"
    user = "" if os.geteuid() else "user root;"  # else its workers may not read what is ours
    config.write_text(NGINX.format(user=user, room=room, servers="\n".join(blocks)))
    ports = [server.port for server in servers]
    stack.enter_context(running([need("nginx"), "-c", str(config)], ports, room / "log"))
