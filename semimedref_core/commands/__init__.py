"""The command line ``semimedref COMMAND``. Help does not load torch; only running commands do."""
