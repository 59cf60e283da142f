"""Pictures of results: overlays, figures with captions, and fine detail."""
