"""From a folder of images to uint8 batches on the device."""
