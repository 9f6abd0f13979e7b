"""What outlives the supervisor's process, and how its successor takes it over."""
