"""What sits on an engine: applications of more than one function, served rather than run."""
