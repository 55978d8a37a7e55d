"""The rooms: one op, one class, one file that holds every rule it has."""
