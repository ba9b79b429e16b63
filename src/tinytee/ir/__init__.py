"""The intermediate representation: what the importer makes and the planner reads."""
