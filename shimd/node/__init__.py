"""A node's set-up: what makes containerd find shimd, how it is undone, and whether it works."""
