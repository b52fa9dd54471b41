"""The command line ``semimedref COMMAND``. Help is shown without loading torch: only a command that runs loads it."""
