"""The worker: the process of one app (``main``), or of what it may be in an app's stead, a module for each."""
