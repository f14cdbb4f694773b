"""How weights get into a constraint's set while the task is still learned; one file is one method."""
