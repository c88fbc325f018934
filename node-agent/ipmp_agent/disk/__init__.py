"""What outlives the process: the state file, recordings, and the directories they lie in."""
