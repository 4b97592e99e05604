"""What we know of the world, each table with its source and date. Data, and nothing that decides."""
