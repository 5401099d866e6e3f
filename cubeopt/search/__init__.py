"""Study files, samplers and rungs: what is tried and who goes on."""
