"""The encryption of ``secret_settings``: the scheme of the crate ``short-crypt``, which ``slight secret`` uses.

It hides values from a glance, and no more: real secrets belong into variables of the container (``configs.envvars``).
Bytes are masked by the key's CRC and shuffled; a checksum of five bits, as a character, stands somewhere among the
base64 text, where depends on both.
"""

import base64
from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_WORD = (1 << 64) - 1


def encrypt(key: bytes, plain: bytes) -> str:
    base = _checksum(plain)
    mask = _crc64(key)
    data = bytearray(byte ^ mask[index % 8] ^ base for index, byte in enumerate(plain))
    _shuffle(data, mask, base, range(len(data)))
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    total = ord(_DIGITS[base]) + sum(text.encode())
    place = (_reversed(sum(key)) ^ total) % (len(text) + 1)
    return text[:place] + _DIGITS[base] + text[place:]


def decrypt(key: bytes, text: str) -> bytes:
    """:raises ValueError: it was not encrypted with this key"""
    if not text or not text.isascii():
        raise ValueError("no cipher")
    place = (_reversed(sum(key)) ^ sum(text.encode())) % len(text)
    base = _DIGITS.index(text[place])
    rest = text[:place] + text[place + 1 :]
    data = bytearray(base64.urlsafe_b64decode(rest + "=" * (-len(rest) % 4)))
    mask = _crc64(key)
    _shuffle(data, mask, base, range(len(data) - 1, -1, -1))
    plain = bytes(byte ^ mask[index % 8] ^ base for index, byte in enumerate(data))
    if _checksum(plain) != base:
        raise ValueError("the checksum is wrong")
    return plain


def _shuffle(data: bytearray, mask: bytes, base: int, order: range) -> None:
    """Swap bytes, by what does not depend on their order; the other way round it is undone."""
    mixed, total = base, base
    for byte in data:
        mixed ^= byte
        total += byte
    seed = _crc64(bytes([mixed]) + (total & _WORD).to_bytes(8, "big"))
    for index in order:
        other = (seed[index % 8] ^ mask[index % 8]) % len(data)
        data[index], data[other] = data[other], data[index]


def _checksum(data: bytes) -> int:
    return _crc8(data) % 32


def _crc(width: int, polynomial: int) -> Callable[[bytes], int]:
    """Make a CRC: most significant bit first, starting with all ones (https://reveng.sourceforge.io/crc-catalogue/)."""
    ones, top = (1 << width) - 1, 1 << width - 1

    def crc(data: bytes) -> int:
        value = ones
        for byte in data:
            value ^= byte << width - 8
            for _ in range(8):
                value = (value << 1 ^ (polynomial if value & top else 0)) & ones
        return value

    return crc


#: CRC-8/CDMA2000, and CRC-64/WE, which is inverted at its end.
_crc8 = _crc(8, 0x9B)
_crc64_plain = _crc(64, 0x42F0E1EBA9EA3693)


def _crc64(data: bytes) -> bytes:
    return (_crc64_plain(data) ^ _WORD).to_bytes(8, "big")


def _reversed(number: int) -> int:
    """Reverse the order of a number's 64 bits."""
    return int(f"{number & _WORD:064b}"[::-1], 2)
