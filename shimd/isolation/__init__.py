"""The isolation of a container: mounts, namespaces, privileges, seccomp. Made at once, or as system calls for later."""
