"""The `prunus` command and the live camera and microphone apps."""
