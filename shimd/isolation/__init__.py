"""How a container is shut in: mounts, namespaces, privileges, seccomp. Made at once, or as system calls for later."""
