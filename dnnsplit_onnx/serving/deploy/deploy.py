"""Files that run each tier where it belongs: docker-compose, and systemd units.

    OUT/dnnsplit_onnx-*.whl  this package, which the image installs
    OUT/docker-compose.yml   a service for each tier above the edge, on a network of their own
    OUT/Dockerfile           the image of all of them
    OUT/secrets.sh           makes an authority, certificates and a token, with openssl
    OUT/systemd/dnnsplit-TIER.service   the same without containers

Every tier is served over TLS, asks for a certificate and a token, runs without privileges on
a file system it cannot write to, and is restarted when it fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dnnsplit_onnx.errors import InputError, OutputError
from dnnsplit_onnx.files import already_exists
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.serving.deploy.wheel import wheel_name, write_wheel
from dnnsplit_onnx.slicing.manifest import load_manifest

PORT = 8443
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the files are made from.

    Attributes:
        folder: The folder of slices, absolute.
        tiers: The tiers above the edge, from tier 1 up.
        providers: `cpu` or `cuda` of each.
    """

    folder: Path
    tiers: tuple[str, ...]
    providers: Mapping[str, str]


def plan_deployment(folder: Path, providers: Mapping[str, str] | None = None) -> Deployment:
    """Reads a folder of slices.

    Args:
        folder: The folder.
        providers: What tiers run on, where it is not what the manifest says.

    Raises:
        ManifestError: It is none.
        InputError: A tier's name cannot be that of a host, or there is nothing to deploy.
    """
    place = slices_folder(folder).resolve()
    manifest = load_manifest(place)
    tiers = tuple(record.tier for record in manifest.slices[1:])
    if not tiers:
        raise InputError(f"`{folder}` has one tier: there is nothing to deploy", hint="use `run`")
    for tier in tiers:
        if _NAME.fullmatch(tier) is None:
            raise InputError(f"tier `{tier}` has a name that no host can have")
    planned = {record.tier: record.provider or "cpu" for record in manifest.slices}
    for tier in tiers:
        if planned[tier] == "web":
            raise InputError(
                f"tier `{tier}` is a browser", hint="write its page: dnnsplit-onnx export web DIR -o SITE"
            )
    return Deployment(place, tiers, {**planned, **(providers or {})})


def write_deployment(deployment: Deployment, output: Path, *, force: bool) -> list[Path]:
    """Writes all files.

    Returns:
        Their paths.

    Raises:
        OutputError: A file is there already, or cannot be written.
        InputError: There is no wheel of this package to be had.
    """
    files = {
        "docker-compose.yml": compose_file(deployment),
        "Dockerfile": _DOCKERFILE.replace("@WHEEL@", wheel_name()),
        "secrets.sh": secrets_script(deployment),
        **{f"systemd/dnnsplit-{tier}.service": systemd_unit(deployment, tier) for tier in deployment.tiers},
    }
    wheel = output / wheel_name()
    paths = [*(output / name for name in files), wheel]
    for path in paths:
        if path.exists() and not force:
            raise already_exists(path)
    try:
        for path, text in zip(paths, files.values(), strict=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (output / "secrets.sh").chmod(0o755)
    except OSError as error:
        raise OutputError(f"cannot write to `{output}`: {error.strerror or error}") from None
    write_wheel(wheel)
    return paths


def compose_file(deployment: Deployment) -> str:
    """The text of docker-compose.yml. JSON strings are YAML strings."""
    services = "".join(_service(deployment, at) for at in range(len(deployment.tiers)))
    secrets = "".join(
        f"  {name}:\n    file: {json.dumps(f'./secrets/{name}')}\n" for name in _secret_names(deployment)
    )
    return f"{_COMPOSE_HEAD}services:\n{services}secrets:\n{secrets}"


def secrets_script(deployment: Deployment) -> str:
    """A shell script that makes what the tiers show each other, once."""
    return _SECRETS.replace("@NAMES@", " ".join(deployment.tiers))


def systemd_unit(deployment: Deployment, tier: str) -> str:
    """The text of a tier's unit; the hosts are named after the tiers."""
    credentials = "%d"
    words = [
        "/usr/bin/env",
        "dnnsplit-onnx",
        *_command(deployment, tier, f"/var/lib/dnnsplit/slices/{tier}", credentials),
    ]
    loads = "\n".join(
        f"LoadCredential={name}:/etc/dnnsplit/secrets/{name}"
        for name in ("ca.pem", "token", f"{tier}.pem", f"{tier}.key")
    )
    private = "no" if deployment.providers.get(tier) == "cuda" else "yes"  # a GPU is a device
    fills = {"@TIER@": tier, "@COMMAND@": " ".join(words), "@CREDENTIALS@": loads, "@PRIVATE@": private}
    text = _UNIT
    for mark, fill in fills.items():
        text = text.replace(mark, fill)
    return text


def _command(deployment: Deployment, tier: str, path: str, secrets: str) -> list[str]:
    at = deployment.tiers.index(tier)
    above = deployment.tiers[at + 1 : at + 2]
    provider = deployment.providers.get(tier, "cpu")
    return [
        *("serve", path, "--host", "0.0.0.0", "--port", str(PORT), "--provider", provider),
        *(word for name in above for word in ("--next", f"https://{name}:{PORT}")),
        *("--token-file", f"{secrets}/token", "--tls-ca", f"{secrets}/ca.pem"),
        *("--tls-cert", f"{secrets}/{tier}.pem", "--tls-key", f"{secrets}/{tier}.key"),
    ]


def _service(deployment: Deployment, at: int) -> str:
    tier = deployment.tiers[at]
    command = json.dumps(_command(deployment, tier, f"/slices/{tier}", "/run/secrets"))
    secrets = json.dumps(["ca.pem", "token", f"{tier}.pem", f"{tier}.key"])
    above = deployment.tiers[at + 1 : at + 2]
    depends = "".join(
        f"    depends_on:\n      {name}:\n        condition: service_healthy\n" for name in above
    )
    ports = f'    ports: ["{PORT}:{PORT}"]\n' if at == 0 else ""
    gpu = _GPU if deployment.providers.get(tier) == "cuda" else ""
    runtime = "gpu" if gpu else "cpu"
    return (
        f"  {tier}:\n    <<: *tier\n    build:\n      context: .\n      args: {{ RUNTIME: {runtime} }}\n"
        f"    command: {command}\n    secrets: {secrets}\n"
        f"    volumes:\n      - type: bind\n        source: {json.dumps(str(deployment.folder))}\n"
        f"        target: /slices\n        read_only: true\n{depends}{ports}{gpu}"
    )


def _secret_names(deployment: Deployment) -> list[str]:
    return ["ca.pem", "token", *(f"{tier}.{end}" for tier in deployment.tiers for end in ("pem", "key"))]


_GPU = """\
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
"""

_COMPOSE_HEAD = """\
# Written by `dnnsplit-onnx compose`. First ./secrets.sh, then: docker compose up --build
# The edge runs outside: dnnsplit-onnx run DIR --url https://HOST:8443 --token-file
#   secrets/token --tls-ca secrets/ca.pem --tls-cert secrets/edge.pem --tls-key secrets/edge.key
x-tier: &tier
  restart: unless-stopped
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  stop_grace_period: 15s
  healthcheck:
    # Health is asked for without a token; the certificate that is needed is the tier's own.
    test: ["CMD", "python", "/healthy.py"]
    interval: 10s
    timeout: 5s
    start_period: 120s
"""

_DOCKERFILE = f"""\
# Written by `dnnsplit-onnx compose`, as the wheel beside it was. The package is installed from
# that and from no index, where anyone may have its name.
FROM python:3.12-slim
ARG RUNTIME=cpu
COPY @WHEEL@ /tmp/
RUN pip install --no-cache-dir "/tmp/@WHEEL@[$RUNTIME]" && rm /tmp/@WHEEL@
COPY <<"EOF" /healthy.py
import glob, pathlib, socket, ssl
folder = "/run/secrets/"
key = pathlib.Path(glob.glob(folder + "*.key")[0])
context = ssl.create_default_context(cafile=folder + "ca.pem")
context.load_cert_chain(key.with_suffix(".pem"), key)
with socket.create_connection(("127.0.0.1", {PORT}), timeout=4) as sock:
    # The certificate is for the tier's own name alone.
    with context.wrap_socket(sock, server_hostname=key.stem) as tls:
        tls.sendall(f"GET /v2/health/ready HTTP/1.0\\r\\nHost: {{key.stem}}\\r\\n\\r\\n".encode())
        assert tls.recv(12).endswith(b" 200"), "the tier is not ready"
EOF
USER 65534
ENTRYPOINT ["dnnsplit-onnx"]
"""

_SECRETS = """\
#!/bin/sh
# Written by `dnnsplit-onnx compose`: an authority of your own, a certificate for each tier
# and for the edge, and a token. Copy to each machine only what its tier needs, and ca.key to none.
# Each tier's certificate is for the host that is named after it, and for no other. To name more:
#     HOSTS="near=DNS:near.example.org,IP:10.0.0.7 cloud=DNS:gpu1" ./secrets.sh
set -eu
umask 077
mkdir -p "$(dirname "$0")/secrets"
cd "$(dirname "$0")/secrets"
days=${DAYS:-825}
# Nothing is left to the machine's openssl.cnf, which may make every certificate an authority.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/ca.cnf" <<'END'
[req]
distinguished_name = name
prompt = no
x509_extensions = authority
[name]
CN = dnnsplit
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
[ -e ca.pem ] || openssl req -x509 -newkey rsa:3072 -nodes -sha256 -days "$days" \\
    -config "$work/ca.cnf" -keyout ca.key -out ca.pem
leaf() { # NAME USAGE [HOSTS]
    [ ! -e "$1.pem" ] || return 0
    printf '[req]\\ndistinguished_name = name\\nprompt = no\\n[name]\\nCN = %s\\n' "$1" > "$work/leaf.cnf"
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = $2"
        echo "subjectKeyIdentifier = hash"
        echo "authorityKeyIdentifier = keyid"
        [ -z "${3:-}" ] || echo "subjectAltName = $3"
    } > "$work/leaf.ext"
    openssl req -new -newkey rsa:3072 -nodes -config "$work/leaf.cnf" -keyout "$1.key" -out "$work/leaf.csr"
    openssl x509 -req -in "$work/leaf.csr" -sha256 -days "$days" -CA ca.pem -CAkey ca.key \\
        -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/leaf.ext" -out "$1.pem"
}
# The edge is a client and nothing else; a tier is also the client of the next, and of its own check.
leaf edge clientAuth
for name in @NAMES@; do
    more=
    for given in ${HOSTS:-}; do
        [ "${given%%=*}" != "$name" ] || more=",${given#*=}"
    done
    leaf "$name" serverAuth,clientAuth "DNS:$name$more"
done
[ -e token ] || openssl rand -hex 32 > token
# Containers read them as another user.
chmod 644 ./*.pem ./*.key token
chmod 600 ca.key
"""

_UNIT = """\
# Written by `dnnsplit-onnx compose`. Slices belong in /var/lib/dnnsplit/slices, what
# secrets.sh makes in /etc/dnnsplit/secrets; the wheel beside this folder is what to install.
[Unit]
Description=dnnsplit-onnx tier @TIER@
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=@COMMAND@
@CREDENTIALS@
DynamicUser=yes
Restart=on-failure
RestartSec=1
TimeoutStopSec=15
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=@PRIVATE@
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
"""
