"""What a file may say, checked without loading torch: types, catalogue, questions, trials."""
