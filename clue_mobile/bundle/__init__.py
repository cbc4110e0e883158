"""Bundles: what export writes (contract/manifest.schema.json), golden vectors included."""
