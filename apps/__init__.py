"""The `prunus` command and the live camera and microphone apps."""

if __name__ != "prunus.apps":
    raise ImportError(
        f"Imported as '{__name__}', expected 'prunus.apps'. "
        "Install prunus first: pip install -e ."
    )
