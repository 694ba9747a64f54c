"""What measures and explains: bench, compare, explain, plan, doctor. Built on the public API."""
