"""What a grid says: MLflow -> pandas frame -> one row a cell -> tables, a picture, a page of Markdown."""
