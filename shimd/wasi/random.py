"""``wasi:random``: all from the kernel's generator, the insecure ones, too."""

import os


class Random:
    """``wasi:random/random``."""

    def get_random_bytes(self, length: int) -> bytes:
        return os.urandom(length)

    def get_random_u64(self) -> int:
        return int.from_bytes(os.urandom(8), "little")


class InsecureRandom(Random):
    """``wasi:random/insecure``."""

    get_insecure_random_bytes = Random.get_random_bytes
    get_insecure_random_u64 = Random.get_random_u64


class InsecureSeed(Random):
    """``wasi:random/insecure-seed``."""

    def insecure_seed(self) -> tuple[int, int]:
        return self.get_random_u64(), self.get_random_u64()
