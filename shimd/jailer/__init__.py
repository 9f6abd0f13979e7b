"""The jailer: a process that makes what containers live in (``main``), one jail after the other (``jail``)."""
