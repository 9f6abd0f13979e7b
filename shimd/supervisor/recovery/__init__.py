"""What makes the supervisor's death a delay: what it leaves behind, and how its successor takes it up."""
