"""What tests share: networks, problems, runs of the command line, references computed independently."""
