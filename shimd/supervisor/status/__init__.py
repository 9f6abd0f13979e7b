"""The status socket: what operators ask, over gRPC."""
