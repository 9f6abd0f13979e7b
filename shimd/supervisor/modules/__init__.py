"""Compiled programs: found in the cache, or compiled by throw-away workers, each once."""
