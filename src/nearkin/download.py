"""Files from the network: over https alone, and of the sha256 that was wanted, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, BinaryIO
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from nearkin.files import write_whole

PIECE = 1 << 20
SECONDS = 60
"""How long a server may be silent."""


class Unfetched(ValueError):
    """A file that no address gives, or not as it should be; in one line."""


def fetch(path: Path, addresses: Sequence[str], sha256: str, most: int = 20_000_000_000) -> None:
    """Fetch a file to `path` from the first address that gives it whole.

    Args:
        sha256: the digest of its bytes in hexadecimal, or the beginning of it, of 8 digits or more.
        most: bytes after which a server is no longer listened to.

    Raises:
        Unfetched: no address has it. What stood at `path` stands there still.
    """
    if len(sha256) < 8:
        raise ValueError(f"sha256 must have 8 to 64 digits, got {sha256!r}")
    reasons = []
    for address in addresses:
        try:
            with opened(address) as source:
                write_whole(path, lambda file, source=source: copy(source, file, sha256, most))
            return
        except Unfetched as error:
            reasons.append(f"{address}: {error}")
        except (OSError, HTTPException) as error:
            if not isinstance(error, HTTPError) and getattr(error, "filename", None):
                raise  # our disk, not their network
            reasons.append(f"{address}: {' '.join(str(error).split()) or type(error).__name__}")
    raise Unfetched("; ".join(reasons))


def opened(address: str) -> BinaryIO:
    """The answer to a request of an address, whose way leads over https from end to end."""
    if not address.startswith("https://"):
        raise Unfetched("wanted an https address")
    return build_opener(Secure()).open(address, timeout=SECONDS)


class Secure(HTTPRedirectHandler):
    """Redirections are followed to https alone."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        if not newurl.startswith("https://"):
            raise Unfetched("it leads to an address without https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def copy(source: BinaryIO, file: BinaryIO, sha256: str, most: int) -> None:
    """Copy to the end, and be sure that it was the right file."""
    digest, size = hashlib.sha256(), 0
    while piece := source.read(PIECE):
        size += len(piece)
        if size > most:
            raise Unfetched(f"it is longer than {most:,} bytes")
        digest.update(piece)
        file.write(piece)
    if not digest.hexdigest().startswith(sha256):
        raise Unfetched(f"its sha256 is {digest.hexdigest()}, wanted {sha256}")
