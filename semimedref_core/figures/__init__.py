"""Static figures, one module for each idea; drawing alone, what is drawn is computed elsewhere."""
