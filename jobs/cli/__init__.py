"""What the commands share: parser, flags, exit codes and signals."""
