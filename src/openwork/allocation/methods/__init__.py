"""Who picks: one file is one method, `pick(layers, limits) -> for each layer the number of an option`.

Pure functions of tables. They may rely on limits that can be met one by one, and on options as `tables.useful` leaves
them: loss rises from one to the next, and each saves something.
"""
