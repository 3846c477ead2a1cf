"""What is said about contours: reports and, in time, scores."""
