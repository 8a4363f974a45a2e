"""What `sluice` does beside serving. Each group of verbs is imported when it is asked for."""
