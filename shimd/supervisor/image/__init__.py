"""A container's image, as far as its layers are no file system's: read from containerd over its gRPC API."""
