"""The camera and microphone of a browser, over WebRTC."""
