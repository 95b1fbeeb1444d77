"""Between the host and the device: uint8 RGB to float32 and back, and the frame that is shown."""
