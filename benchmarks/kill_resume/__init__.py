"""SIGKILLs and full disks against a real training command."""
