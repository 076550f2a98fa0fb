"""Plans of runs without data: hours and cost of rows of given lengths on rented machines."""
