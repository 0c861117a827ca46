"""Models on many devices: signed bundles, registries, checks on the device, receipts."""
