"""How a container is shut in: mounts, namespaces, privileges, seccomp. Calls to be made at once, or steps for later."""
