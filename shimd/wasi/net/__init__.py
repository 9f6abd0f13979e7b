"""``wasi:sockets`` (https://github.com/WebAssembly/wasi-sockets, 0.2): TCP, UDP and names, by the host's.

The functions that start something have done it when they return; those that finish it say how it went.
"""

from shimd.wasi.net.names import NameLookup
from shimd.wasi.net.tcp import TcpCreateSocket
from shimd.wasi.net.udp import UdpCreateSocket

__all__ = ["NameLookup", "TcpCreateSocket", "UdpCreateSocket"]
