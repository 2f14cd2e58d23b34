"""An end to what nights leave behind: what stays, and the removal of everything else."""
