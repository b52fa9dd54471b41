"""Where and how a run runs: devices, checkpoints, the state that it resumes from, files that survive a kill."""
