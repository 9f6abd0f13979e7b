"""The daemon in numbers, for Prometheus: docs/metrics.md.

What happens is measured where it happens, through one object (:mod:`.measures`), which measures nothing unless
``SHIMD_METRICS_ADDR`` says where it is asked for; what is, is counted when it is asked for.
"""
