"""containerd's calls as OpenTelemetry's spans, in the traces of who calls: docs/tracing.md.

What is worth a span says so where it happens (:func:`.steps.step`), which costs nothing unless the daemon's variables
say where spans are sent to: only then is loaded what sends them.
"""
