"""Reports of grids: records -> frames -> statistics -> tables, charts, image gallery and one HTML page."""
