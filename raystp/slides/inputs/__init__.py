"""What a user gives as slides: a folder, a glob, a prefix of an object store, or a table in one of several formats."""
