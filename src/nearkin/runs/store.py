"""Rows: one JSON line a finished run, appended whole or not at all.

A row is a dictionary of plain data:

    hash       the recipe's hash             study    the study that asked for it, or ""
    recipe     every field of the recipe     status   "done", or "diverged" (loss not finite)
    metrics    {"last": {...},               the last epoch: the result
                "validated": {...} or null,  the epoch that validation chose, where it did
                "best_on_test": {...}}       the best epoch on test: what cheating would say
               each {"recall@1": 0.57, "map@r": ..., ...}, shares in 0..1, with "epoch"
    epochs     [{"epoch": 1, "loss": ..., "seconds": ..., "test": {...}, "validation": {...}}, ...]
    cost       {"seconds", "train_seconds", "images_per_second", "peak_memory_mb",
                "parameters", "loss_parameters"}
    data       {"name", "variant", "train_images", "train_classes", "query_images", ...}
    versions   {"nearkin", "torch", ...}     machine  {"cpu", "cores", "gpu", "system"}
    files      {"folder", "checkpoint", "embeddings", "steps"}, relative to the store's folder
"""
