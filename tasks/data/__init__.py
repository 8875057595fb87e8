"""Reading what users have: where it is, what is in it."""
