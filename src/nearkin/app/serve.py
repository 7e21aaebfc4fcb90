"""`nearkin serve`: an index, or a Model, that answers over HTTP."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

from tyro.conf import Positional

KEY = "NEARKIN_API_KEY"
BACKLOG = 2048  # connections that wait to be accepted


def serve(
    first: Positional[str],
    port: int = 8000,
    host: str = "127.0.0.1",
    api_key_file: Path | None = None,
    max_megabytes: int = 32,
) -> None:
    """Answer over HTTP: a page to drop a photograph on, /search, /embed, /healthz, /metrics.

    Example: nearkin serve shop --port 8000

    Example: curl --data-binary @new.jpg "http://127.0.0.1:8000/search?k=5"

    Args:
        first: an index; or a Model, a folder or a name, of which /embed alone is answered.
        port: to listen on; 0: any that is free.
        host: address to listen on; one that others can reach wants an API key.
        api_key_file: file that holds the key which requests must show as Authorization: Bearer
            KEY; by default the environment variable NEARKIN_API_KEY.
        max_megabytes: of a body; larger ones are refused.
    """
    import uvicorn
    from threadpoolctl import threadpool_limits

    from nearkin.app.export import open_model
    from nearkin.search.embedder import embedder_of, embedder_of_index
    from nearkin.search.index import CARD, Index
    from nearkin.search.service import Service

    key = key_of(api_key_file)
    if not loopback(host) and not key:
        raise ValueError(
            f"--host {host} can be reached by others: give --api-key-file FILE, or set {KEY}"
        )
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be in 0..65535, got {port}")
    if not 1 <= max_megabytes <= 4096:
        raise ValueError(f"--max-megabytes must be in 1..4096, got {max_megabytes}")
    index = Index(first) if (Path(first).expanduser() / CARD).is_file() else None
    embedder = embedder_of_index(index) if index else embedder_of(open_model(first))
    hosts = ("127.0.0.1", "localhost", "[::1]", "::1") if loopback(host) else ("*",)
    service = Service(embedder, index, key=key, hosts=hosts, body_bytes=max_megabytes * 2**20)
    with listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        what = f"{len(index):,} photographs" if index else "a Model, without an index"
        print(f"http://{shown}:{listener.getsockname()[1]}: {what}; Ctrl-C ends it", flush=True)
        config = uvicorn.Config(
            service.app(),
            log_level="warning",
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        # one thread for a search's product: several spin after it, and slow the next embedding
        with threadpool_limits(1, "blas"):
            uvicorn.Server(config).run(sockets=[listener])


def key_of(path: Path | None) -> str:
    """The API key of a file, or of the environment; "" where there is none."""
    key = path.read_text(encoding="utf-8").strip() if path else os.environ.get(KEY, "").strip()
    if path and not key:
        raise ValueError(f"{path} holds no API key")
    return key


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> [loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "shop.example")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, or an OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # those who connect inherit it; else an answer's body waits 40 ms for the head's receipt
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # so that whoever reads the line below is not refused
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from None
    return listener
