"""The supervisor's ends of other processes: fork servers and their workers, and jailers."""
