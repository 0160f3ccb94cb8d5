"""Re-identification: detect objects in a video, embed, track and link them across time and videos."""
