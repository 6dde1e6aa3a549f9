"""The job table: claims, leases, what attempts report, and what follows from their ends."""
