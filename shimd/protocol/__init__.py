"""The messages and plans that pass between supervisor, fork servers, workers and jailers."""
