"""Small kernels in C, compiled on the machine that runs them; each has a plain fallback for where no compiler is."""
