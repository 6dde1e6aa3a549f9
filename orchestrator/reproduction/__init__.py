"""A trial from the database alone: trained again, or made a file."""
