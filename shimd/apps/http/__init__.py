"""HTTP servers: components that export ``wasi:http/incoming-handler``, an instance a request."""
