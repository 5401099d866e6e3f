"""The two processes of a running study: coordinator and worker."""
