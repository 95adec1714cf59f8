"""Work on a cluster of Ray: encoding, removal of duplicates, leak checks and mining."""
