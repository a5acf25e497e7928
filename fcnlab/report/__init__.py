"""What a grid says: records and the book -> frames -> statistics -> table, plots, gallery, one page of HTML."""
