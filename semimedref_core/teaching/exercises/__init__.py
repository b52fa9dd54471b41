"""What is right, a module for each notebook."""
