"""What is said about contours: reports, scores, tables and figures."""
