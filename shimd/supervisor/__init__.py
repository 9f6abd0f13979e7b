"""The supervisor, ``shimd serve``: the one daemon of a node, which containerd and operators speak with.

Its parts, from its sockets down: ``serve`` (its life), ``launch_socket``, ``endpoint`` (a task socket) and ``status``
(the operators' one); ``task`` (containerd's Task service: containers and their processes); ``workers`` (its ends of the
processes that it has: fork servers, workers, jailers); ``modules`` (compiled programs) and ``image`` (what containerd
has in its content store).
"""
