"""Unpacking gzip and zstd as they come, in bounded memory, and no further than there is room for."""

import sys
import zlib
from collections.abc import Iterator
from typing import Any, Final, Literal

from ingestion.entries import BLOCK, Source
from shared.config import MIB
from shared.errors import SluiceError
from shared.spool import Entry, Spool

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RATIO_MAX: Final = 1_000  # times its size that a body may unpack to, ...
_RATIO_FROM: Final = 16 * BLOCK  # ... once it has this many bytes: logs are never so much alike, bombs are
FILE_WINDOW: Final = 27  # its logarithm, 128 MiB: what zstd's own tools make without being told of more
PUSH_WINDOW: Final = 23  # 8 MiB, of each push in flight: what a Content-Encoding may ask for (RFC 9659)
_SLICE: Final = 16_384  # of what comes is unpacked at a time: each of its members copies what follows it
_MAGIC: Final[dict[bytes, "Packing"]] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

Packing = Literal["gzip", "zstd"]


class PackedWronglyError(SluiceError):
    """The bytes are not what they are said to be packed with, or end too early."""


class UnpacksTooLargeError(SluiceError):
    """More comes out than is taken."""


def packing_of(start: bytes) -> Packing | None:
    """What a file that begins so is packed with, if anything."""
    return next((packing for magic, packing in _MAGIC.items() if start.startswith(magic)), None)


class Unpacker:
    """Unpacks any number of gzip's members, or of zstd's frames, one behind the other."""

    def __init__(self, packing: Packing, limit: int, setting: str, window: int = FILE_WINDOW) -> None:
        """`limit` is how many bytes may come out; `setting` is what it comes from. `window` is the logarithm of the
        memory that zstd may need."""
        self._packing = packing
        self._window = window
        self._limit = limit
        self._setting = setting
        self._member = self._begun()
        self._in = 0
        self.out = 0  # bytes so far

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, a block at most at a time.

        Raises PackedWronglyError and UnpacksTooLargeError, before more is unpacked.
        """
        for at in range(0, len(data), _SLICE) or (0,):
            yield from self._fed(data[at : at + _SLICE])

    def _fed(self, data: bytes) -> Iterator[bytes]:
        self._in += len(data)
        while data or not self._needs_input():
            if self._member.eof:
                self._member = self._begun()
            try:
                plain, data = self._step(data)
            except (zlib.error, zstd.ZstdError) as error:
                most = f" with a window of {(1 << self._window) // MIB} MiB at most" * (self._packing == "zstd")
                raise PackedWronglyError(f"this is no {self._packing}{most}: {error}") from error
            if not plain and not data:
                return
            self.out += len(plain)
            self._check()
            yield plain

    def end(self) -> None:
        """Raises PackedWronglyError where the end is missing."""
        if not self._member.eof:
            raise PackedWronglyError(f"it ends within its {self._packing} stream")

    def _begun(self) -> Any:
        if self._packing == "gzip":
            return zlib.decompressobj(31)
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: self._window})

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """A block of what comes out, and what is left of `data`."""
        plain: bytes = self._member.decompress(data, BLOCK)
        if self._packing == "zstd":  # keeps for itself what it has not unpacked
            return plain, self._member.unused_data if self._member.eof else b""
        return plain, self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def _needs_input(self) -> bool:
        return self._packing == "gzip" or self._member.eof or self._member.needs_input

    def _check(self) -> None:
        if self.out > self._limit:
            raise UnpacksTooLargeError(f"it unpacks to over {self._limit} bytes ({self._setting})")
        if self.out > _RATIO_FROM and self.out > self._in * RATIO_MAX:
            raise UnpacksTooLargeError(f"it unpacks to over {RATIO_MAX} times its {self._in} bytes")


def unpacked(source: Source, packing: Packing, spool: Spool, limit: int, setting: str) -> Entry:
    """A packed source's bytes, in the spool, whose quota holds. Raises what Unpacker and the spool raise."""
    unpacker = Unpacker(packing, limit, setting)
    body = spool.create(BLOCK)
    try:
        at = 0
        while block := source.read(at, BLOCK):
            at += len(block)
            for plain in unpacker.feed(block):
                body.append(plain)
        unpacker.end()
    except BaseException:
        body.release()
        raise
    return body
