"""What is measured of one network on one batch. Measuring leaves the network as it was."""
