"""What a program needs of a device's memory: planned, lowered by order and by recomputation."""
