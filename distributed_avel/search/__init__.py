"""What a sweep tries, what it costs, and how the best is chosen: pure, and tested without Ray."""
