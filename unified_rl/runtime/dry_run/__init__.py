"""One step of any experiment on the CPU, with small stand-ins for all that has to be downloaded."""
