"""containerd's Task service: containers, their processes, states, streams and exits."""
