"""HEIC, the format of phones: decoded in a process of its own, as its library can crash on a file.

The process is this file, run without the package. It reads pictures from its standard input, writes
pixels to its standard output, and ends when the input does. As many are started as threads meet
such pictures at the same time.

    asked      8 bytes, the length of the file; 8 bytes, the most pixels; the file
    answered   8 bytes, the length of a JSON text; 8 bytes, the length of the pixels; the text, of
               their mode and size, or of what is wrong, and whether that is its size; the pixels
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import io
import json
import os
import select
import struct
import subprocess
import sys
import time
from typing import IO

BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
SECONDS = 60
"""How long a picture may take."""
IDLE: list[tuple[int, subprocess.Popen[bytes]]] = []
"""Decoders that nobody asks anything, and the process that each was started by: a fork has their
pipes, and must leave them alone."""


def is_heic(head: bytes) -> bool:
    """Whether a file that begins so is a HEIC picture; AVIF, which looks alike, is not.

    >>> is_heic(b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic")
    True
    """
    if head[4:8] != b"ftyp" or head[8:12] not in BRANDS:
        return False
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return not {b"avif", b"avis"} & {head[at : at + 4] for at in range(8, size, 4)}


def can_read() -> bool:
    """Whether the package that decodes HEIC is installed: `pip install 'nearkin[heic]'`."""
    return importlib.util.find_spec("pi_heif") is not None


class Wrong(ValueError):
    """What is wrong with a picture; `large`, where that is its size."""

    def __init__(self, why: str, large: bool = False):
        super().__init__(why)
        self.large = large


def decoded(content: bytes, largest: int) -> tuple[str, tuple[int, int], bytearray]:
    """Mode, size and pixels of a HEIC file, upright.

    Raises:
        Wrong: it is damaged, too large, takes too long, or crashes the decoder.
    """
    process = taken()
    try:
        answer = asked(process, struct.pack("<QQ", len(content), largest) + content)
    except (OSError, EOFError):
        process.kill()
        ended(process)
        raise Wrong("its decoder crashed or took too long") from None
    except BaseException:  # an interrupt: what it answers now is no answer to the next
        process.kill()
        ended(process)
        raise
    IDLE.append((os.getpid(), process))
    found, pixels = json.loads(answer[0]), answer[1]
    if "wrong" in found:
        raise Wrong(found["wrong"], found["large"])
    return found["mode"], tuple(found["size"]), pixels


def taken() -> subprocess.Popen[bytes]:
    """A process that decodes, and that nobody else asks now."""
    while True:
        try:
            pid, process = IDLE.pop()
        except IndexError:
            break
        if pid == os.getpid() and process.poll() is None:
            return process
    call = [sys.executable, "-P", __file__]
    pipe = subprocess.PIPE
    return subprocess.Popen(call, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0)


def ended(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a process, which ends it, and wait for that."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


@atexit.register
def end_all() -> None:
    """Leave no process behind."""
    while IDLE:
        pid, process = IDLE.pop()
        if pid == os.getpid():
            ended(process)


def asked(process: subprocess.Popen[bytes], question: bytes) -> tuple[bytearray, bytearray]:
    """Text and pixels that a process answers; EOFError where it ends or is silent for too long."""
    source, target = process.stdout, process.stdin
    assert source
    assert target
    view, until = memoryview(question), time.monotonic() + SECONDS
    while view:
        view = view[target.write(view) or 0 :]
    sizes = struct.unpack("<QQ", received(source, 16, until))
    return received(source, sizes[0], until), received(source, sizes[1], until)


def received(source: IO[bytes], size: int, until: float) -> bytearray:
    """So many bytes, within the time."""
    found, count = bytearray(size), 0
    view = memoryview(found)
    while count < size:
        ready, _, _ = select.select([source], [], [], max(0, until - time.monotonic()))
        piece = source.readinto(view[count:]) if ready else 0  # type: ignore[attr-defined]
        if not piece:
            raise EOFError
        count += piece
    return found


def serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Answer until nothing more is asked."""
    import pi_heif
    from PIL import Image

    pi_heif.register_heif_opener()
    Image.MAX_IMAGE_PIXELS = None
    while len(head := source.read(16)) == 16:
        length, largest = struct.unpack("<QQ", head)
        pixels = b""
        try:
            with Image.open(io.BytesIO(source.read(length)), formats=["HEIF"]) as image:
                if image.width * image.height > largest:
                    size = f"{image.width:,} x {image.height:,} pixels"
                    answer: dict[str, object] = {"wrong": size, "large": True}
                else:
                    pixels = image.tobytes()
                    answer = {"mode": image.mode, "size": image.size}
        except Exception as error:  # a decoder raises what the bytes happen to lead to
            why = " ".join(str(error).split()) or type(error).__name__
            answer = {"wrong": why, "large": False}
        text = json.dumps(answer).encode()
        target.write(struct.pack("<QQ", len(text), len(pixels)) + text)
        target.write(pixels)
        target.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
