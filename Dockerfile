# syntax=docker/dockerfile:1
# The sidecar as a container: built with pinned packages, run without a compiler, a shell user or root.

FROM python:3.13-slim AS build
WORKDIR /src
# Packages first: this layer lasts until a lock changes.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
 && python3 -m venv /opt/sidecar \
 && /opt/sidecar/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY sidecar ./sidecar
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/sidecar/bin/pip install --no-cache-dir --no-deps --no-index /dist/*.whl \
 && /opt/sidecar/bin/pip uninstall --yes pip \
 && /opt/sidecar/bin/python -m compileall -q /opt/sidecar/lib

FROM python:3.13-slim
# A number, so that `runAsNonRoot` can be checked without reading /etc/passwd; 1337 is what traffic
# capture rules of service meshes exempt by custom.
RUN groupadd --gid 1337 sidecar \
 && useradd --uid 1337 --gid 1337 --no-create-home --home-dir /var/lib/sidecar --shell /usr/sbin/nologin sidecar \
 && install --directory --owner=1337 --group=1337 --mode=0700 /var/lib/sidecar
COPY --from=build /opt/sidecar /opt/sidecar
COPY LICENSE /usr/share/doc/sidecar/LICENSE
ENV PATH=/opt/sidecar/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/sidecar
USER 1337:1337
WORKDIR /var/lib/sidecar
# 15001 outbound, 15006 inbound; the admin interface (15000) stays on loopback.
EXPOSE 15001 15006
STOPSIGNAL SIGTERM
# Exec form, no curl: urlopen raises for anything but success, and that is exit code 1.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:15000/ready', timeout=2)"]
ENTRYPOINT ["sidecar"]
CMD ["run", "/etc/sidecar/sidecar.yaml"]
