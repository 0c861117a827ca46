"""The sub-commands of `prunus export`, by task."""
