"""What a run stands on: images to batches (`utils.data`), files and records (`utils.run`)."""
