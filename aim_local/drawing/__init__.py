"""Pictures of which visual tokens were kept. Knows grids and pixels, no models."""
