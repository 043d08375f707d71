"""The command `spikeback`, one small file per subcommand."""
