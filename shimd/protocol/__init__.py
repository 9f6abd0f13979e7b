"""What passes between supervisor, fork servers, workers and jailers, and what it means."""
