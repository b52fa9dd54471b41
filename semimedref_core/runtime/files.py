"""The names of the files of a run and of a network. Nothing here loads torch."""

CONFIG = "config.json"  # settings of a run, or arguments of a network
METRICS_LOG, RESULTS, VALID = "metrics.jsonl", "results.json", "valid.npz"
CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
