"""Pictures on their way into a network: crops, letterboxes, one rule of sampling."""
