"""A variational autoencoder: reconstruction against the divergence of the posterior."""
