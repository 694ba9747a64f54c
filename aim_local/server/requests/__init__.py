"""A chat request as it comes, and what it asks of the model."""
