"""Receipts: canonical JSON, signed and chained, that can be checked without the device."""
