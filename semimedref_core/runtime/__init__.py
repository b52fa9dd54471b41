"""The machinery of a run: devices, checkpoints, resuming, and files that survive a kill."""
