"""Stages in threads with bounded queues between them."""
