"""A SuperLink with TLS and node authentication on loopback, and SuperNodes of owners."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
        return ports


def private_bytes(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write_certificates(folder: Path) -> None:
    """An authority of one's own, and a certificate of the server by it."""
    import datetime
    import ipaddress

    now = datetime.datetime.now(datetime.UTC)

    def builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey):
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    ca = builder("authority", "authority", ca_key).add_extension(constraints, critical=True)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    server = builder("server", "authority", key).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").write_bytes(
        private_bytes(key, serialization.PrivateFormat.TraditionalOpenSSL)
    )


def write_node_key(folder: Path, name: str) -> None:
    """A SuperNode's key pair."""
    key = ec.generate_private_key(ec.SECP384R1())
    (folder / name).write_bytes(private_bytes(key, serialization.PrivateFormat.OpenSSH))
    (folder / name).chmod(0o600)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    (folder / f"{name}.pub").write_bytes(public + b"\n")


class Deployment:
    """A SuperLink and its SuperNodes; each a process of its own, with its output in a file.

    Args:
        folder: for keys, output, and all that Flower keeps.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        (self._port,) = free_ports(1)
        self.environment = os.environ | {
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
        }
        write_certificates(folder)
        (folder / "flwr").mkdir()
        (folder / "flwr" / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{self._port}"\n'
            f'root-certificates = "{folder / "ca.pem"}"\n'
        )

    def superlink(self, *, database: str | None = None) -> subprocess.Popen[bytes]:
        """Start the server's side and wait until it can be asked.

        Args:
            database: a file for what Flower keeps; without one it is in memory.
        """
        kept = [] if database is None else ["--database", database]
        link = self._start(
            "superlink",
            [
                "flower-superlink",
                "--ssl-ca-certfile",
                "ca.pem",
                "--ssl-certfile",
                "server.pem",
                "--ssl-keyfile",
                "server.key",
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
                "--host",
                "127.0.0.1",
                "--port",
                str(self._port),
                *kept,
            ],
        )
        until = time.monotonic() + 120
        while not _listens(self._port):
            assert link.poll() is None, self.said("superlink")
            assert time.monotonic() < until, self.said("superlink")
            time.sleep(0.2)
        return link

    def register(self, name: str) -> None:
        """Make the key of a node known to the SuperLink."""
        self.flwr("supernode", "register", f"{name}.pub", "here", "--format", "json")

    def supernode(
        self, name: str, settings: str, *, home: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start an owner's side.

        Args:
            home: where Flower keeps the apps that it runs there; none: where the server's side has
                them too.
        """
        (port,) = free_ports(1)
        return self._start(
            name,
            [
                "flower-supernode",
                "--root-certificates",
                "ca.pem",
                "--superlink",
                f"127.0.0.1:{self._port}",
                "--auth-supernode-private-key",
                name,
                "--port",
                str(port),
                "--node-config",
                settings,
            ],
            {} if home is None else {"FLWR_HOME": str(home)},
        )

    def flwr(self, *arguments: str, seconds: float = 120, home: Path | None = None) -> str:
        """What the `flwr` command says; `home` as for `supernode`."""
        done = subprocess.run(
            [BIN / "flwr", *arguments],
            cwd=self._folder,
            env=self.environment | ({} if home is None else {"FLWR_HOME": str(home)}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.said("superlink")
        return done.stdout

    def run(self, app: Path) -> int:
        """Start the app; returns the run's number."""
        told = json.loads(self.flwr("run", str(app), "here", "--format", "json"))
        return int(told["run-id"])

    def wait(self, run: int, *, seconds: float) -> str:
        """The status of a run that has ended."""
        until = time.monotonic() + seconds
        while not (status := self.status(run)).startswith("finished"):
            assert time.monotonic() < until, self.said("superlink")
            time.sleep(1)
        return status

    def status(self, run: int) -> str:
        """Such as finished:completed."""
        told = json.loads(self.flwr("list", "here", "--run-id", str(run), "--format", "json"))
        return str(told["runs"][0]["status"])

    def child(self, process: subprocess.Popen[bytes], command: str) -> psutil.Process:
        """The process of that command which this one has started, or one that it has started."""
        for each in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(Path(word).name == command for word in each.cmdline()[:2]):
                    return each
        raise AssertionError(f"there is no {command}: {self.said('superlink')}")

    def said(self, name: str) -> str:
        """What a process has printed."""
        path = self._folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End all processes, and those that they have started."""
        started: list[psutil.Process] = []
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                started += psutil.Process(process.pid).children(recursive=True)
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # What a SuperLink starts has a session of its own.
        for child in started:
            with contextlib.suppress(psutil.Error):
                child.kill()

    def _start(
        self, name: str, command: list[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=self._folder,
                env=self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """A deployment that ends with the block."""
    deployment = Deployment(folder)
    try:
        yield deployment
    finally:
        deployment.close()
