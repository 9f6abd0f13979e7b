"""What makes a supervisor's death a delay: descriptors that others keep, the journal, and the way back from both."""
