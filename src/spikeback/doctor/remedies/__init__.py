"""What helps a sick network: remedies that are tried before they are proposed."""
