"""Your own data: a folder of pictures, masks and sentences, listed in one table."""
